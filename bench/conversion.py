"""Memory and speed of a conversion, beside a plain copy of the same file on the same disk.

A synthetic PersonaPlex file (random finite bfloat16 values) goes to JAX and back, each way in a
process of its own whose peak resident memory is read when it ends. Every stage starts with the
source out of the page cache and ends when the disk has everything, the copy too.
"""

import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import ml_dtypes
import numpy as np
import tyro

from bench.machine import describe_machine
from convert import export_mimi, params_from_tensors, to_jax, to_torch
from convert.safetensors_io import TensorInfo, write_safetensors
from convert.sources import release_shapes
from helium_jax import MoshiConfig, personaplex_7b
from mimi_jax import MimiConfig
from mimi_jax import nano as nano_mimi

__all__ = ["Stage", "main", "scaled"]


@dataclass(frozen=True)
class Options:
    """Memory and speed of converting a synthetic PersonaPlex checkpoint there and back.

    Attributes:
      scale: size of the file relative to the released one (16.7 GB); needs twice that on the disk.
      folder: where to put the files; removed afterwards. The system's temporary folder by default.
      json_out: file for the figures.
    """

    scale: float = 1.0
    folder: Path | None = None
    json_out: Path | None = None


@dataclass(frozen=True)
class Stage:
    """What one stage took.

    Attributes:
      seconds: until the disk had everything.
      cpu_seconds: of all threads; what a busy machine does not change.
      peak_bytes: resident memory of its process at its largest.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def scaled(scale: float) -> MoshiConfig:
    """PersonaPlex with about `scale` times its parameters: narrower and less deep."""
    factor, full = scale ** (1 / 3), personaplex_7b()
    heads = max(1, round(factor * full.num_heads))
    depth_heads = max(1, round(factor * full.depformer_num_heads))
    width = 64 * depth_heads
    return replace(
        full,
        dim=128 * heads,
        num_heads=heads,
        num_layers=max(1, round(factor * full.num_layers)),
        text_card=max(8, round(factor * full.text_card)),
        card=max(8, round(factor * full.card)),
        depformer_dim=width,
        depformer_dim_feedforward=4224 * width // full.depformer_dim,
        depformer_num_heads=depth_heads,
        depformer_num_layers=max(1, round(factor * full.depformer_num_layers)),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs every stage; 1 if what came back differs from what went in."""
    options = tyro.cli(Options, args=argv, description=Options.__doc__)
    config, mimi = scaled(options.scale), nano_mimi()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="conversion-") as made:
        root = Path(made)
        source, jax_folder, back = root / "release", root / "jax", root / "back"
        _make_release(source, config, mimi)
        weights = source / "model.safetensors"
        size, digest = weights.stat().st_size, _digest(weights)
        stages = {"copy": _measure(_copy, weights, root / "copy")}
        (root / "copy").unlink()
        arch = source.with_name("arch.json")
        stages["to-jax"] = _measure(_to_jax, source, jax_folder, arch)
        shutil.rmtree(source)
        stages["to-torch"] = _measure(to_torch, jax_folder, back)
        same = _digest(back / "model.safetensors") == digest
    for name, value in describe_machine("orbax-checkpoint", "tensorstore").items():
        print(f"{name:<16} {value}")
    print(f"{'file':<16} {size / 1e9:.2f} GB, bfloat16")
    for name, stage in stages.items():
        relative = stages["copy"].seconds / stage.seconds
        print(
            f"{name:<16} {stage.seconds:8.1f} s  {size / stage.seconds / 1e6:7.0f} MB/s"
            f"  {100 * relative:4.0f} % of a copy  cpu {stage.cpu_seconds:6.1f} s"
            f"  peak {stage.peak_bytes / 1e9:.2f} GB"
        )
    print("there and back   " + ("identical bytes" if same else "DIFFERENT BYTES"))
    if options.json_out:
        figures = {name: vars(stage) for name, stage in stages.items()}
        values = {"bytes": size, "same": same, "stages": figures, "machine": describe_machine()}
        options.json_out.write_text(json.dumps(values, indent=2) + "\n")
    return 0 if same else 1


def _make_release(folder: Path, config: MoshiConfig, mimi: MimiConfig) -> None:
    """A folder as NVIDIA publishes one, and beside it the file that says its shapes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    shapes = {key: TensorInfo(s, "BF16") for key, s in release_shapes(config).items()}

    def values(key: str) -> np.ndarray:
        bits = rng.integers(0, 1 << 16, shapes[key].shape, np.uint16)
        bits &= 0xBFFF  # an exponent that is no NaN's
        return bits.view(ml_dtypes.bfloat16)

    write_safetensors(folder / "model.safetensors", shapes, values)
    codec = {key: np.ones(shape, np.float32) for key, shape in release_shapes(mimi).items()}
    params = params_from_tensors(mimi, codec)
    export_mimi(folder / "tokenizer-e351c8d8-checkpoint125.safetensors", mimi, params)
    (folder / "tokenizer_spm_32k_3.model").touch()
    arch = {"lm": config.to_dict(), "mimi": mimi.to_dict()}
    folder.with_name("arch.json").write_text(json.dumps(arch))


def _measure(work: Callable[..., object], *paths: Path) -> Stage:
    for file in [paths[0], *paths[0].rglob("*")]:
        if file.is_file():
            _forget(file)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, work, paths))
    process.start()
    sender.close()
    try:
        stage = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{work.__name__} ended with {process.exitcode}") from None
    process.join()
    return stage


def _child(sender: Connection, work: Callable, paths: tuple) -> None:
    begin, begin_cpu = time.perf_counter(), time.process_time()
    work(*paths)
    os.sync()
    cpu = time.process_time() - begin_cpu
    sender.send(Stage(time.perf_counter() - begin, cpu, _peak_bytes()))


def _peak_bytes() -> int:
    """Peak resident memory of this process, pages of mapped files included."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _to_jax(source: Path, target: Path, arch: Path) -> None:
    to_jax(source, target, arch=arch)


def _forget(path: Path) -> None:
    """Takes a file out of the page cache, where the system can."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
