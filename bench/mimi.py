"""`bench mimi`: an 80 ms frame and a whole file through the codec, here and in other runtimes."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import tyro

from bench.codec_session import Ours, compile_s
from bench.machine import describe_machine
from bench.peers import Peer, build_peer, missing_packages
from bench.random_codec import noise_pcm, random_codec
from bench.threads import limit_threads
from bench.timing import Samples, alternate
from convert import export_mimi
from mimi_jax import MimiConfig, mimi_24khz, nano

__all__ = ["MimiOptions", "agreement", "main"]

FRAME_S = 0.08
OURS = "moshi-jax"


@dataclass(frozen=True, kw_only=True)
class MimiOptions:
    """What a frame of codec costs, alone and against other runtimes with the same random weights.

    All contestants run in this process, on the same processors, in turns. Every peer's codes are
    compared with ours first. "cpu" is processor time, which other processes do not change much.
    """

    against: str = ""
    """Peers, separated by commas: moshi, rustymimi, transformers (each must be installed)."""
    threads: int = 1
    """Processors that every contestant may use; 0 leaves the process unrestricted."""
    batches: tuple[int, ...] = (1, 4, 16, 64)
    """Sessions side by side, ours only."""
    codebooks: int = 8
    """Codebooks in use, 1 to 32."""
    rounds: int = 100
    """Timed calls of every contestant at batch 1; larger batches get fewer, at least 10."""
    file_s: float = 10.0
    """Length of the whole signal in seconds; 0 leaves that part out."""
    size: Literal["24khz", "nano"] = "24khz"
    """The released shape, or a small one without peers."""


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark; see `MimiOptions`."""
    options = tyro.cli(MimiOptions, args=argv, prog="bench mimi")
    names = [name for name in options.against.split(",") if name]
    if missing := {name: gone for name in names if (gone := missing_packages(name))}:
        raise ImportError(f"got no packages for peers {missing}, expected them installed")
    config = mimi_24khz(options.codebooks) if options.size == "24khz" else nano()
    if names and options.size != "24khz":
        raise ValueError("peers know the released shape only; leave --size or --against out")
    if options.threads:
        limit_threads(options.threads)
    for name, value in describe_machine("moshi", "torch", "rustymimi", "transformers").items():
        print(f"{name:<14}{value}")
    mimi, params = random_codec(config)
    ours = Ours(mimi, params)
    state_floats = sum(leaf.size for leaf in jax.tree.leaves(ours.state))
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    print(f"{'threads':<14}{options.threads or 'all'}")
    print(f"{'weights':<14}{weights / 1e6:.1f} MB, state {state_floats:,} values a session")
    _report_compile(ours)

    contestants: dict[str, Peer] = {OURS: ours}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mimi.safetensors"
        if names:
            export_mimi(file, config, params)
        for name in names:
            contestants[name] = build_peer(
                name, file, num_codebooks=options.codebooks, threads=options.threads or 1
            )
    if options.file_s:
        _report_files(contestants, options, config)
    _report_frames(
        {name: peer for name, peer in contestants.items() if peer.streams}, options, config
    )
    for batch in options.batches:
        _report_batch(Ours(mimi, params, batch=batch), options)
    return 0


def agreement(codes: Mapping[str, np.ndarray], reference: str = OURS) -> dict[str, tuple[int, int]]:
    """How many codes of each contestant equal ours, of how many."""
    return {
        name: (int((got == codes[reference]).sum()), got.size)
        for name, got in codes.items()
        if name != reference
    }


def _report_compile(ours: Ours) -> None:
    """Compile time of both steps: without any cache, and read back from one on disk."""
    settings = ("jax_enable_compilation_cache", "jax_compilation_cache_dir")
    before = {name: jax.config.values[name] for name in settings}
    with tempfile.TemporaryDirectory() as folder:
        try:
            jax.config.update("jax_enable_compilation_cache", False)
            cold = compile_s(ours)
            jax.config.update("jax_enable_compilation_cache", True)
            jax.config.update("jax_compilation_cache_dir", folder)
            _forget_cache()
            compile_s(ours)
            warm = compile_s(ours)
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            _forget_cache()
    print(f"{'compile':<14}{cold:.1f} s both steps, {warm:.1f} s from the cache on disk\n")


def _forget_cache() -> None:
    """JAX opens its cache folder once; this lets it look at the setting again."""
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()


def _report_frames(peers: Mapping[str, Peer], options: MimiOptions, config: MimiConfig) -> None:
    frames = noise_pcm(20 * config.frame_samples).reshape(20, -1)
    codes, heard = {}, {}
    for name, peer in peers.items():
        peer.reset()
        codes[name] = np.stack([peer.encode_frame(frame) for frame in frames])
        heard[name] = np.stack([peer.decode_frame(given) for given in codes[name]])
    for name, (same, total) in agreement(codes).items():
        error = np.abs(heard[name] - heard[OURS]).max() / np.abs(heard[OURS]).max()
        print(f"{name}: {same} of {total} streamed codes equal ours, audio within {error:.0e}")
    given, frame = codes[OURS][0], frames[0]
    works: dict[str, Callable[[], object]] = {}
    for name, peer in peers.items():
        works[f"{name} encode"] = lambda peer=peer: peer.encode_frame(frame)
        works[f"{name} decode"] = lambda peer=peer: peer.decode_frame(given)
        works[f"{name} both"] = lambda peer=peer: peer.decode_frame(peer.encode_frame(frame))
    samples = alternate(works, rounds=options.rounds)
    print("\nframe of 80 ms, batch 1")
    print(_line("", "median ms", "p99 ms", "cpu ms", "real time", "ours is, wall", "cpu"))
    for name, taken in samples.items():
        ours = samples[f"{OURS} {name.split()[-1]}"]
        print(_timing(name, taken, FRAME_S, ours))
    print()


def _report_files(peers: Mapping[str, Peer], options: MimiOptions, config: MimiConfig) -> None:
    pcm = noise_pcm(int(options.file_s * config.frame_rate) * config.frame_samples, seed=1)
    codes = {name: peer.encode_file(pcm) for name, peer in peers.items()}
    for name, (same, total) in agreement(codes).items():
        print(f"{name}: {same} of {total} codes of the file equal ours")
    ours, given = peers[OURS], codes[OURS]
    assert isinstance(ours, Ours)
    works: dict[str, Callable[[], object]] = {
        f"{name} encode": lambda peer=peer: peer.encode_file(pcm) for name, peer in peers.items()
    }
    works[f"{OURS} encode, full"] = lambda: ours.encode_full(pcm)
    works[f"{OURS} decode"] = lambda: ours.decode_file(given)
    samples = alternate(works, rounds=3, warmup=1)
    seconds = len(pcm) / config.sample_rate
    print(f"\nwhole signal of {seconds:.1f} s")
    print(_line("", "median ms", "p99 ms", "cpu ms", "real time", "ours is, wall", "cpu"))
    for name, taken in samples.items():
        print(_timing(name, taken, seconds, samples[f"{OURS} {name.split()[1].rstrip(',')}"]))
    print()


def _report_batch(ours: Ours, options: MimiOptions) -> None:
    config, batch = ours.mimi.config, ours.batch
    pcm = np.stack([noise_pcm(config.frame_samples, seed=row) for row in range(batch)])
    codes = ours.encode_batch(pcm)
    works = {
        "encode": lambda: ours.encode_batch(pcm),
        "decode": lambda: ours.decode_batch(codes),
        "both": lambda: ours.decode_batch(ours.encode_batch(pcm)),
    }
    samples = alternate(works, rounds=max(10, options.rounds // batch))
    rate = batch / np.median(samples["both"].cpu_s)
    print(f"batch {batch}: {rate:.1f} frames a processor-second")
    for name, taken in samples.items():
        print(_timing(name, taken, FRAME_S * batch, None))


def _timing(name: str, taken: Samples, audio_s: float, ours: Samples | None) -> str:
    """A table line; real time is seconds of audio a second of work."""
    wall, cpu = taken.median_ms, taken.median_cpu_ms
    faster = [f"{wall / ours.median_ms:.2f}x", f"{cpu / ours.median_cpu_ms:.2f}x"] if ours else []
    numbers = (wall, taken.quantile_ms(0.99), cpu)
    return _line(name, *(f"{x:.1f}" for x in numbers), f"{audio_s * 1e3 / wall:.2f}x", *faster)


def _line(name: str, *cells: str) -> str:
    return f"  {name:<24}" + "".join(f"{cell:>14}" for cell in cells)
