"""A short conversation as files, to build miniatures of corpora from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def conversation() -> np.ndarray:
    """[S, 2] at 8 kHz: channel 0 is louder than channel 1, so that they can be told apart."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 1, (8000, 2)) * np.array([0.2, 0.05])


@pytest.fixture
def write(conversation) -> Callable[..., Path]:
    """Writes the conversation, or one channel of it, as an audio file; parents are made."""
    soundfile = pytest.importorskip("soundfile")

    def write(path: Path, channel: int | None = None, **options: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pcm = conversation if channel is None else conversation[:, channel]
        soundfile.write(path, pcm, 8000, **options)
        return path

    return write


@pytest.fixture
def levels() -> Callable[..., list[float]]:
    """RMS of both channels of a recording."""

    def levels(recording) -> list[float]:
        with recording.open() as pcm:
            audio = pcm.read(0, pcm.num_samples)
        return np.sqrt(np.mean(np.square(audio), axis=1)).tolist()

    return levels
