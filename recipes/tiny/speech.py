"""The sample conversation as training data: whole channels, and the phrases in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from mimi_jax import read_audio
from moshi_jax.sample import conversation_path

SAMPLE_RATE = 24_000


class Phrase(NamedTuple):
    """A stretch of speech without a silence in it."""

    text: str
    pcm: np.ndarray  # float32 [S] at 24 kHz


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one speaker says before the other one answers.

    Attributes:
      speaker: "agent" or "user", each with a voice of its own.
      kind: "turn", "barge_in" or "backchannel".
      phrases: in order; in the recording there are pauses between them.
      pauses_s: those pauses.
    """

    speaker: str
    kind: str
    phrases: tuple[Phrase, ...]
    pauses_s: tuple[float, ...]


def read_channels() -> Float32[np.ndarray, "C S"]:
    """Both channels of the conversation: agent, user."""
    return read_audio(conversation_path(), sample_rate=SAMPLE_RATE, channels=2)


def read_turns() -> list[Turn]:
    """Every utterance of the conversation, cut out of its channel."""
    channels = read_channels()
    times = json.loads(conversation_path().with_suffix(".json").read_text(encoding="utf-8"))
    turns = []
    for utterance in times["utterances"]:
        pcm = channels[times["speakers"][utterance["speaker"]]["channel"]]
        phrases = tuple(
            Phrase(
                phrase["text"],
                pcm[round(phrase["start_s"] * SAMPLE_RATE) : round(phrase["end_s"] * SAMPLE_RATE)],
            )
            for phrase in utterance["phrases"]
        )
        turns.append(
            Turn(
                speaker=utterance["speaker"],
                kind=utterance["kind"],
                phrases=phrases,
                pauses_s=tuple(p["end_s"] - p["start_s"] for p in utterance["pauses"]),
            )
        )
    return turns


def random_chunks(
    channels: Float32[np.ndarray, "C S"], rng: np.random.Generator, *, batch: int, samples: int
) -> Float32[np.ndarray, "B S"]:
    """Random cuts at random gains, four out of five with speech in their middle."""
    cuts = np.empty((batch, samples), np.float32)
    for row in cuts:
        channel = channels[rng.integers(len(channels))]
        start = rng.integers(channel.size - samples)
        if rng.random() < 0.8:
            while not channel[start + samples // 2]:
                start = rng.integers(channel.size - samples)
        row[:] = channel[start : start + samples] * 10 ** rng.uniform(-0.4, 0.15)
    return cuts
