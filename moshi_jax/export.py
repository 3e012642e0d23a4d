"""`moshi-jax export CHECKPOINT FOLDER`: the frame step as a file that needs no code of the model.

StableHLO programs by `jax.export`, the parameters beside them, and a short program that runs both
with jax and numpy alone. See docs/export.md.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import tyro

from convert import load_mimi, load_moshi, read_configs
from convert.folders import new_folder
from helium_jax import Sampling, init_state
from helium_jax.duplex import DuplexState, duplex_step
from layers_jax import Precision, reset_rows
from mimi_jax import init_state as init_codec_state
from moshi_jax import exported
from moshi_jax.loading import PRECISIONS, PrecisionName, released_sampling

__all__ = ["ExportOptions", "export_step", "main"]

Platform = Literal["cpu", "cuda", "rocm", "tpu"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Writes the frame step of a checkpoint so that jax and numpy alone can run it."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """Checkpoint folder."""
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder to make; it must not exist, or be empty."""
    batch: int = 1
    """Sessions that one call serves."""
    precision: PrecisionName | None = None
    """Number format of the language model (int8: its matrices); the checkpoint's by default."""
    greedy: bool = False
    """Take the most probable token everywhere instead of sampling as the checkpoint recommends."""
    platforms: tuple[Platform, ...] = ()
    """What it can run on; the attached device's platform by default."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; see `ExportOptions`."""
    options = tyro.cli(ExportOptions, args=argv, prog="moshi-jax export")
    export_step(
        options.checkpoint,
        options.folder,
        batch=options.batch,
        precision=PRECISIONS[options.precision],
        sampling=Sampling.greedy() if options.greedy else None,
        platforms=options.platforms,
    )
    size = sum(path.stat().st_size for path in options.folder.iterdir())
    print(
        f"{options.folder}: {size / 1e6:.1f} MB; python {options.folder}/run.py says how to run it"
    )
    return 0


def export_step(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    batch: int = 1,
    precision: Precision | None = None,
    sampling: Sampling | None = None,
    platforms: Sequence[Platform] = (),
) -> Path:
    """Exports codec and language model of a checkpoint folder as one compiled step a frame.

    Args:
      checkpoint: a release, or what `to-jax` made of one.
      folder: the folder to make: `step.bin`, `fresh.bin` and `reset.bin` (programs), `params.bin`,
        `export.json` (shapes and versions) and `run.py`.
      batch: sessions B that one call serves.
      precision: number formats of the language model; None keeps those of the checkpoint.
      sampling: how tokens are drawn; None does as the release recommends.
      platforms: what the programs can run on; the attached device's platform by default.

    Returns:
      The folder.

    Raises:
      ValueError: `batch` is below 1, or flatbuffers is not installed.
      ConversionError: the checkpoint cannot be used.
      FileExistsError: `folder` is in use.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}, expected at least 1")
    _check_flatbuffers()
    sampling = sampling or released_sampling(read_configs(checkpoint).lm_gen_config)
    lm, lm_params = load_moshi(checkpoint, precision=precision)
    mimi, mimi_params = load_mimi(checkpoint)
    params, params_tree = jax.tree.flatten((mimi_params, lm_params))

    def begin(seed: jax.Array) -> DuplexState:
        state = init_state(lm, batch, seed=seed, sampling=sampling)
        return DuplexState(mimi=init_codec_state(mimi, batch), lm=state)

    seed = jax.ShapeDtypeStruct((), jnp.int32)
    state, state_tree = jax.tree.flatten(jax.eval_shape(begin, seed))

    # Lists of arrays on both sides: whoever loads this knows nothing of our classes.
    def fresh(seed: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(begin(seed))

    def step(params: list, state: list, pcm: jax.Array, mask: jax.Array) -> tuple[list, list]:
        both = jax.tree.unflatten(params_tree, params)
        before = jax.tree.unflatten(state_tree, state)
        after, frame = duplex_step(mimi, lm, both, before, pcm, mask, sampling=sampling)
        return jax.tree.leaves(after), [getattr(frame, name) for name in exported.OUTPUTS]

    def reset(state: list, rows: jax.Array, seed: jax.Array) -> list[jax.Array]:
        before = jax.tree.unflatten(state_tree, state)
        return jax.tree.leaves(reset_rows(rows, begin(seed), before))

    samples = mimi.config.frame_samples
    pcm = jax.ShapeDtypeStruct((batch, samples), jnp.float32)
    rows = jax.ShapeDtypeStruct((batch,), jnp.bool_)
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in params]
    targets = list(platforms) or [jax.default_backend()]
    with new_folder(folder) as made:
        for name, function, donated, inputs in (
            ("fresh", fresh, (), (seed,)),
            ("step", step, (1,), (shapes, state, pcm, rows)),
            ("reset", reset, (0,), (state, rows, seed)),
        ):
            program = jax.export.export(
                jax.jit(function, donate_argnums=donated), platforms=targets
            )(*inputs)
            (made / f"{name}.bin").write_bytes(program.serialize())
        about = {
            "batch": batch,
            "frame_samples": samples,
            "sample_rate": mimi.config.sample_rate,
            "delay_frames": lm.config.max_delay + (lm.config.timing == "personaplex"),
            "platforms": targets,
            "jax": jax.__version__,
            "params": _write_params(made / "params.bin", params),
        }
        (made / "export.json").write_text(json.dumps(about, indent=1) + "\n")
        (made / "run.py").write_text(Path(exported.__file__).read_text())
    return Path(folder)


def _write_params(path: Path, params: list[jax.Array]) -> list[dict[str, Any]]:
    """Writes arrays end to end, one in host memory at a time; returns where each one is."""
    entries, at = [], 0
    with path.open("wb") as file:
        for leaf in params:
            values = np.ascontiguousarray(leaf)
            file.write(values.view(np.uint8).data if values.size else b"")
            entries.append({"at": at, "shape": list(leaf.shape), "dtype": str(leaf.dtype)})
            at += values.nbytes
    return entries


def _check_flatbuffers() -> None:
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "exporting needs flatbuffers, which is not installed; "
            "run: pip install 'moshi-jax[export]'"
        ) from error
