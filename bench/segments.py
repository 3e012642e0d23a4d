"""`moshi-jax bench segments`: how fast corpora become segments, beside the usual way to listen."""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

import rewards
from bench.machine import describe_machine
from bench.timing import alternate
from bench.vad import hop_peer
from grpo.corpora import CORPORA
from grpo.extract import extract
from grpo.ipus import SpeechConfig, hear
from mimi_jax import read_audio, resample, write_audio
from rewards.timestamps import speech_intervals
from rewards.vad import SAMPLE_RATE, load_vad

__all__ = ["SegmentsBench", "main"]

_SAMPLE = Path(rewards.__file__).parent.parent / "moshi_jax" / "sample" / "conversation.flac"


@dataclass(frozen=True, kw_only=True)
class SegmentsBench:
    """Seconds of two-channel audio a second, from files to shards, and what hearing costs.

    The peer hears as extraction scripts usually do: soundfile, soxr, and the graph of silero-vad
    6.2.3 in onnxruntime with one thread, hop by hop, at the recorded level. Hearing here also
    measures loudness, compares levels for bleed and refines the edges.
    """

    audio: Path = _SAMPLE
    """A two-channel recording, repeated to the length asked for."""
    sample_rate: int = 24_000
    """Of the files that are made of it."""
    minutes: float = 10.0
    """Of each file."""
    files: int = 4
    """Recordings of the corpus."""
    workers: int = 2
    """Processes of the extraction."""
    rounds: int = 3
    """Times each contestant hears one file; the medians are reported."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print.

    Returns:
        0.

    Raises:
        ImportError, FileNotFoundError: an extra, onnxruntime or the silero-vad wheel is missing.
    """
    config = tyro.cli(SegmentsBench, args=argv, prog=sys.argv[0])
    with tempfile.TemporaryDirectory() as folder:
        corpus, out = Path(folder) / "corpus", Path(folder) / "out"
        seconds = _make_corpus(corpus, config)
        started, cpu = time.perf_counter(), _cpu_s()
        summary = extract(corpus, out, workers=config.workers)
        wall_s, cpu_s = time.perf_counter() - started, _cpu_s() - cpu
        ours, theirs = _hear(corpus, seconds, config.rounds)
    for name, value in describe_machine("onnxruntime", "silero-vad", "soxr", "soundfile").items():
        print(f"{name:<12} {value}")
    segments = sum(count for splits in summary["segments"].values() for count in splits.values())
    total_s = seconds * config.files
    print(f"audio        {config.files} x {seconds:.0f} s, 2 channels of {config.sample_rate} Hz")
    print(f"segments     {segments}\n")
    print(
        f"corpus to shards, {config.workers} processes and their start included:"
        f" {total_s / wall_s:.0f} x real time, {total_s / cpu_s:.0f} x a core"
    )
    print("hearing one file, in seconds of two-channel audio:")
    print(f"  {'':<28} {'a wall s':>9} {'a cpu s':>9}")
    for name, sample in (("here", ours), ("soundfile, soxr, onnxruntime", theirs)):
        wall, cpu = sample
        print(f"  {name:<28} {seconds / wall:>9.0f} {seconds / cpu:>9.0f}")
    print(
        f"ratio: {theirs[0] / ours[0]:.2f} x in wall time, {theirs[1] / ours[1]:.2f} x in cpu time"
    )
    return 0


def _cpu_s() -> float:
    """Processor time of this process and of those that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _make_corpus(folder: Path, config: SegmentsBench) -> float:
    """Writes the files; returns the seconds of each."""
    folder.mkdir()
    pcm = read_audio(config.audio, sample_rate=24_000, channels=2)
    repeats = -(-round(config.minutes * 60 * 24_000) // pcm.shape[1])
    pcm = np.tile(pcm, (1, repeats))[:, : round(config.minutes * 60 * 24_000)]
    pcm = resample(pcm, 24_000, config.sample_rate)
    for number in range(config.files):
        # Not the same bytes twice, and not the same levels.
        write_audio(folder / f"{number}.wav", pcm * (1 - 0.05 * number), config.sample_rate)
    return pcm.shape[1] / config.sample_rate


def _hear(folder: Path, seconds: float, rounds: int) -> tuple[tuple[float, float], ...]:
    """Median (wall, cpu) seconds of hearing the first file, here and by the peer."""
    recording = CORPORA["stereo"](folder).recordings[0]
    params, probabilities, config = load_vad(), hop_peer(), SpeechConfig()
    path = recording.channels[0][0].path

    def here() -> None:
        with recording.open() as pcm:
            hear(params, pcm, config)

    def peer() -> None:
        audio = read_audio(path, sample_rate=SAMPLE_RATE, channels=2)
        for row in audio:
            speech_intervals(probabilities(row), len(row), config.vad)

    times = alternate({"here": here, "peer": peer}, rounds=rounds, warmup=1)
    return tuple(
        (times[name].median_ms / 1e3, times[name].median_cpu_ms / 1e3) for name in ("here", "peer")
    )
