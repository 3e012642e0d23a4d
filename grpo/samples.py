"""Rollouts to listen to: a stereo file each, user left and agent right, and the agent's words."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from grpo.segments import SAMPLE_RATE
from helium_jax import TextTokenizer
from layers_jax import atomic_path
from mimi_jax import write_audio


class Sample(NamedTuple):
    """One rollout."""

    segment_id: str
    axis: str
    user: Float[np.ndarray, " S"]
    agent: Float[np.ndarray, " S"]
    text: Int[np.ndarray, " T"]  # tokens, -1 after the end


def write_samples(
    folder: Path, epoch: int, samples: Sequence[Sample], tokenizer: TextTokenizer | None
) -> None:
    """`EPOCH-N-AXIS.wav` and `.txt`: segment, then words, or token ids without a tokenizer."""
    folder.mkdir(exist_ok=True)
    for number, sample in enumerate(samples):
        stem = folder / f"{epoch:05d}-{number}-{sample.axis}"
        write_audio(stem.with_suffix(".wav"), np.stack([sample.user, sample.agent]), SAMPLE_RATE)
        tokens = [int(token) for token in sample.text if token >= 0]
        if tokenizer is None:
            words = " ".join(map(str, tokens))
        else:
            words = "".join(map(tokenizer.piece, tokens)).strip()
        with atomic_path(stem.with_suffix(".txt")) as temporary:
            temporary.write_text(f"{sample.segment_id}\n{words}\n", encoding="utf-8")
