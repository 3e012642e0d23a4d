"""Words with times to a text stream, one token a frame. Source: moshi-finetune, interleaver.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int32

from grpo.corpora import Word
from helium_jax.text import EPAD, PAD

__all__ = ["text_stream"]


def text_stream(
    words: Sequence[Word],
    num_frames: int,
    encode: Callable[[str], list[int]],
    *,
    frame_rate: float = 12.5,
    padding: int = PAD,
    end_padding: int = EPAD,
) -> Int32[np.ndarray, " T"]:
    """Text token of each frame: a word's pieces from the frame it starts in, else PAD.

    The frame before a word, if it would be PAD, holds EPAD. A word that starts while an earlier one
    still has pieces left takes their place: they are lost, so that text never lags behind speech.

    Args:
      words: sorted by start, seconds; a word that ends where it starts is left out.
      num_frames: T.
      encode: text to piece ids, without begin or end marks.
      frame_rate: frames a second.
      padding: the model's PAD.
      end_padding: its EPAD.
    """
    stream = np.full(num_frames, padding, np.int32)
    spoken = [word for word in words if word.start_s < word.end_s]
    following, pieces = 0, []
    for frame in range(num_frames):
        while following < len(spoken) and spoken[following].start_s * frame_rate < frame + 1:
            pieces = list(encode(spoken[following].text.strip()))
            following += 1
        if pieces:
            if frame and stream[frame - 1] == padding:
                stream[frame - 1] = end_padding
            stream[frame] = pieces.pop(0)
    return stream
