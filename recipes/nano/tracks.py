"""Endless single-speaker tracks from the bank: what the codec is trained on.

A track is one channel of a conversation: utterances and the silences between them. The agent's
start on the frame grid, at the level of the bank; the user's start anywhere, louder or softer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from moshi_jax.nano.bank import SAMPLE_RATE, Bank, Recording
from moshi_jax.nano.sentences import Speaker, Split

FRAME = 1920
LABELS_A_FRAME = 4
PROSODY = ("silent", "body", "level", "fall")
"""What a moment tells of the end of the turn; the agent's voice tells nothing."""


class Tracks(NamedTuple):
    """A batch of tracks with what is said every 20 ms."""

    pcm: Float32[np.ndarray, "B S"]
    agent: np.ndarray  # bool [B]: the agent's voice
    phones: Int32[np.ndarray, "B L"]  # 0 is silence
    prosody: Int32[np.ndarray, "B L"]  # index of PROSODY


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Shares and ranges a track is drawn from.

    Attributes:
      agent: share of tracks in the agent's voice.
      silent: share of tracks without any speech.
      off_grid: share of the agent's tracks that start anywhere, as a recording of it would.
      gap_s: silence between utterances; half the gaps are much shorter than the longest.
      user_gain_db: of the user's tracks.
    """

    agent: float = 0.5
    silent: float = 0.03
    off_grid: float = 0.1
    gap_s: tuple[float, float] = (0.1, 2.0)
    user_gain_db: tuple[float, float] = (-5.0, 4.0)


class TrackMaker:
    """Draws tracks.

    Args:
      bank: the recordings.
      split: the lines that are used.
    """

    def __init__(self, bank: Bank, split: Split = "train") -> None:
        self._own: dict[Speaker, list[Recording]] = {
            speaker: [r for r in bank.recordings if r.speaker == speaker and r.split == split]
            for speaker in ("agent", "user")
        }
        names = sorted({phone.name for r in bank.recordings for phone in r.phones})
        self.phone_ids = {name: number for number, name in enumerate(names, 1)}

    def draw(self, rng: np.random.Generator, mix: Mix, *, batch: int, frames: int) -> Tracks:
        """A batch of B tracks of `frames` frames; utterances may begin before and end after."""
        samples = frames * FRAME
        hop = FRAME // LABELS_A_FRAME
        pcm = np.zeros((batch, samples), np.float32)
        agent = rng.random(batch) < mix.agent
        phones = np.zeros((batch, samples // hop), np.int32)
        prosody = np.zeros_like(phones)
        for row in range(batch):
            if rng.random() < mix.silent:
                continue
            step = FRAME if agent[row] and rng.random() >= mix.off_grid else 1
            gain = 1.0 if agent[row] else 10 ** (rng.uniform(*mix.user_gain_db) / 20)
            own = self._own["agent" if agent[row] else "user"]
            now = int(-rng.uniform(0, 2.5) * SAMPLE_RATE)
            while now < samples:
                now += round(self._gap_s(rng, mix) * SAMPLE_RATE)
                now = -(-now // step) * step
                recording = own[rng.integers(len(own))]
                _add(pcm[row], recording.pcm, now, gain)
                self._label(phones[row], prosody[row], recording, now / hop, hop)
                now += recording.pcm.size
        return Tracks(pcm, agent, phones, prosody)

    @staticmethod
    def _gap_s(rng: np.random.Generator, mix: Mix) -> float:
        low, high = mix.gap_s
        return low + (high - low) * rng.random() ** 3

    def _label(
        self,
        phones: Int32[np.ndarray, " L"],
        prosody: Int32[np.ndarray, " L"],
        recording: Recording,
        start: float,
        hop: int,
    ) -> None:
        """Writes one utterance's labels, `start` in labels."""
        scale = SAMPLE_RATE / hop

        def span(item: tuple[str, float, float]) -> slice:
            return slice(
                max(0, round(start + item[1] * scale)), max(0, round(start + item[2] * scale))
            )

        for phone in recording.phones:
            phones[span(phone)] = self.phone_ids[phone.name]
        for word in recording.words:
            prosody[span(word)] = PROSODY.index("body")
        if recording.speaker == "user":
            prosody[span(recording.words[-1])] = PROSODY.index(recording.ending)


def _add(
    row: Float32[np.ndarray, " S"], pcm: Float32[np.ndarray, " R"], start: int, gain: float
) -> None:
    first, last = max(0, start), min(row.size, start + pcm.size)
    if first < last:
        row[first:last] += gain * pcm[first - start : last - start]
