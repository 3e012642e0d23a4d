"""`moshi-jax bench vad`: the voice activity detector against onnxruntime, same audio, same core."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jaxtyping import Float32

import rewards
from bench.machine import describe_machine
from bench.timing import alternate
from mimi_jax.audio_file import read_audio
from rewards.extract_silero import wheel_file
from rewards.vad import CONTEXT_SAMPLES, HOP_SAMPLES, SAMPLE_RATE

__all__ = ["VadBench", "main"]

_SAMPLE = Path(rewards.__file__).parent.parent / "moshi_jax" / "sample" / "conversation.flac"
_BLOCK_HOPS = 512  # of the sequence graph; larger ones are no faster

Peer = Callable[[Float32[np.ndarray, " S"]], Float32[np.ndarray, " F"]]


@dataclass(frozen=True, kw_only=True)
class VadBench:
    """Seconds of audio a second of processor time, and how far the probabilities are apart.

    The peers are the graphs of silero-vad 6.2.3 in onnxruntime with one thread: the one its package
    steps through hop by hop, and the sequence graph, which takes many hops a call.
    """

    audio: tuple[Path, ...] = (_SAMPLE,)
    """Recordings; every channel is heard."""
    seconds: float = 60.0
    """Of each channel."""
    rounds: int = 7
    """Times each contestant hears everything; the medians are reported."""
    core: int = 0
    """The one this process is bound to; -1 binds to none."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print.

    Returns:
        0; 1 if a decision (probability at least 0.5) differs from the peer's.

    Raises:
        ImportError, FileNotFoundError: onnxruntime or the silero-vad wheel is not installed.
    """
    config = tyro.cli(VadBench, args=argv, prog=sys.argv[0])
    if config.core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {config.core})  # before JAX makes its threads
    rows = _rows(config)
    peers = {
        "onnxruntime, sequence graph": _sequence_peer(),
        "onnxruntime, hop by hop": hop_peer(),
    }
    import jax.numpy as jnp

    params, audio = rewards.load_vad(), jnp.asarray(rows)

    def ours() -> np.ndarray:
        return np.asarray(rewards.speech_probabilities(params, audio))

    contestants: dict[str, Callable[[], object]] = {"rewards.vad": ours}
    for name, peer in peers.items():
        contestants[name] = lambda peer=peer: [peer(row) for row in rows]
    times = alternate(contestants, rounds=config.rounds)

    for name, value in describe_machine("onnxruntime", "silero-vad").items():
        print(f"{name:<12} {value}")
    print(f"audio        {len(rows)} x {rows.shape[1] / SAMPLE_RATE:.1f} s, core {config.core}\n")
    probabilities, flipped = ours(), 0
    own_s = times["rewards.vad"].median_cpu_ms / 1e3
    print(f"{'':<28} {'audio s / cpu s':>15} {'ours is':>8} {'largest diff':>13} {'flips':>6}")
    print(f"{'rewards.vad':<28} {rows.size / SAMPLE_RATE / own_s:>15.0f}")
    for name, peer in peers.items():
        peer_s = times[name].median_cpu_ms / 1e3
        theirs = np.stack([peer(row) for row in rows])
        flips = int(((theirs >= 0.5) != (probabilities >= 0.5)).sum())
        flipped += flips
        print(
            f"{name:<28} {rows.size / SAMPLE_RATE / peer_s:>15.0f} {peer_s / own_s:>7.2f}x"
            f" {np.abs(theirs - probabilities).max():>13.1e} {flips:>6}"
        )
    return 1 if flipped else 0


def _rows(config: VadBench) -> Float32[np.ndarray, "B S"]:
    """Every channel at 16 kHz, cut or filled with zeros to one length."""
    samples = round(config.seconds * SAMPLE_RATE)
    rows = []
    for path in config.audio:
        for channel in read_audio(path, sample_rate=SAMPLE_RATE):
            part = channel[:samples]
            rows.append(np.pad(part, (0, samples - len(part))))
    return np.stack(rows).astype(np.float32)


def _session(graph: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("the peer is not installed: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(wheel_file(graph)), options, providers=["CPUExecutionProvider"]
    )


def _hops(row: Float32[np.ndarray, " S"]) -> Float32[np.ndarray, "F W"]:
    """Hops of 512 samples with the 64 before them."""
    padded = np.pad(row, (CONTEXT_SAMPLES, -len(row) % HOP_SAMPLES))
    windows = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT_SAMPLES + HOP_SAMPLES)
    return np.ascontiguousarray(windows[::HOP_SAMPLES])


def hop_peer() -> Peer:
    session, rate = _session("silero_vad_16k_op15.onnx"), np.array(SAMPLE_RATE)

    def hear(row: Float32[np.ndarray, " S"]) -> Float32[np.ndarray, " F"]:
        state, found = np.zeros((2, 1, 128), np.float32), []
        for hop in _hops(row):
            probability, state = session.run(None, {"input": hop[None], "state": state, "sr": rate})
            found.append(probability[0, 0])
        return np.array(found)

    return hear


def _sequence_peer() -> Peer:
    session = _session("silero_vad_16k_sequence.onnx")

    def hear(row: Float32[np.ndarray, " S"]) -> Float32[np.ndarray, " F"]:
        hidden = cell = np.zeros((1, 1, 128), np.float32)
        hops, found = _hops(row), []
        for start in range(0, len(hops), _BLOCK_HOPS):
            inputs = {"input": hops[start : start + _BLOCK_HOPS], "h": hidden, "c": cell}
            probabilities, hidden, cell = session.run(None, inputs)
            found.append(probabilities.reshape(-1))
        return np.concatenate(found)

    return hear
