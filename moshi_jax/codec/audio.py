"""Audio files of any length, a piece at a time, at the codec's rate."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from grpo.corpora.pcm import AudioRef, Pcm, open_pcm
from mimi_jax.audio_file import import_audio_extra

__all__ = ["AUDIO_SUFFIXES", "num_resampled", "open_target", "read_pieces"]

AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".sph", ".aiff", ".au"}
PIECE_S = 10.0


def num_resampled(pcm: Pcm, sample_rate: int) -> int:
    """Samples of open audio at `sample_rate`."""
    return round(pcm.num_samples * sample_rate / pcm.sample_rate)


def read_pieces(path: Path, channel: int, sample_rate: int) -> Iterator[Float32[np.ndarray, " s"]]:
    """One channel of a file at `sample_rate`, the samples that `mimi_jax.read_audio` would give.

    Raises:
      ValueError: the file cannot be read, or ends before its header says.
    """
    with open_pcm(AudioRef(path)) as pcm:
        length, size = num_resampled(pcm, sample_rate), round(PIECE_S * pcm.sample_rate)
        turn = _resampler(pcm.sample_rate, sample_rate)
        given = 0
        for start in range(0, pcm.num_samples, size):
            read = pcm.read(start, size)[channel]
            if len(read) < min(size, pcm.num_samples - start):
                raise ValueError(
                    f"{path} ends after {start + len(read)} samples, expected {pcm.num_samples} as "
                    "its header says; get the whole file"
                )
            piece = turn(read, False)[: length - given]
            given += len(piece)
            yield piece
        if given < length:  # what the filter still holds: silence after the end pushes it out
            silence = np.zeros(1 + -(-pcm.sample_rate // sample_rate), np.float32)
            yield turn(silence, True)[: length - given]


def _resampler(source_rate: int, target_rate: int) -> Any:
    if source_rate == target_rate:
        return lambda samples, last: samples
    soxr = import_audio_extra("soxr")
    stream = soxr.ResampleStream(source_rate, target_rate, 1, dtype="float32", quality="HQ")
    return lambda samples, last: stream.resample_chunk(samples, last=last)


@contextmanager
def open_target(path: Path, channels: int, sample_rate: int) -> Iterator[Any]:
    """A 16-bit file to write [s, C] to, piece by piece."""
    soundfile = importlib.import_module("soundfile")
    kind = {".wav": "WAV", ".flac": "FLAC"}[path.suffix.lower()]
    with soundfile.SoundFile(path, "w", sample_rate, channels, "PCM_16", format=kind) as file:
        yield file
