"""Words with times to a text stream, one token a frame. Source: moshi-finetune, interleaver.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from helium_jax.text import EPAD, PAD
from recipes.tiny.speech import Phrase

FRAME_RATE_HZ = 12.5


class Word(NamedTuple):
    """A spoken word of the agent."""

    text: str
    start_s: float
    end_s: float


def spread_words(phrase: Phrase, start_s: float, sample_rate: int = 24_000) -> list[Word]:
    """The words of a phrase, each as long as its share of the letters."""
    words = phrase.text.split()
    lengths = np.array([len(word) + 1 for word in words], float)
    edges = start_s + np.concatenate([[0.0], np.cumsum(lengths)]) / lengths.sum() * (
        phrase.pcm.size / sample_rate
    )
    return [Word(*item) for item in zip(words, edges[:-1], edges[1:], strict=True)]


def text_stream(
    words: Sequence[Word], num_frames: int, encode: Callable[[str], list[int]]
) -> Int32[np.ndarray, " T"]:
    """Text token of each frame: a word's pieces from the frame it starts in, else PAD.

    The frame before a word, if it would be PAD, holds EPAD. A word that starts while an earlier one
    still has pieces left takes their place: they are lost, so that text never lags behind speech.

    Args:
      words: sorted by start; a word that ends where it starts is left out.
      num_frames: T.
      encode: text to piece ids, without begin or end marks.
    """
    stream = np.full(num_frames, PAD, np.int32)
    waiting = [word for word in words if word.start_s < word.end_s]
    pieces: list[int] = []
    for frame in range(num_frames):
        while waiting and waiting[0].start_s * FRAME_RATE_HZ < frame + 1:
            pieces = list(encode(waiting.pop(0).text.strip()))
        if pieces:
            if frame and stream[frame - 1] == PAD:
                stream[frame - 1] = EPAD
            stream[frame] = pieces.pop(0)
    return stream
