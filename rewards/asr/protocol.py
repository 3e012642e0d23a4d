"""What every recognizer is: clips in, transcripts out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Word:
    """One word and its time in the clip, in seconds."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Transcript:
    """The words of one clip.

    Attributes:
        text: empty where nothing was understood.
        words: None where the recognizer gives no times.
        logprob: mean log-probability of a token, None where there is none.
    """

    text: str
    words: tuple[Word, ...] | None = None
    logprob: float | None = None


@runtime_checkable
class Recognizer(Protocol):
    """Anything that transcribes.

    Attributes:
        name: which recognizer, and version: of its weights; both are part of cache keys.
    """

    name: str
    version: str

    def transcribe(self, batch: Sequence[Float32[np.ndarray, "..."]]) -> list[Transcript | None]:
        """Transcribe clips of 16 kHz audio in [-1, 1], each a vector.

        Returns:
            One transcript a clip, in order; None = missing: the recognizer failed, which is not
            the same as that nobody spoke.
        """
        ...
