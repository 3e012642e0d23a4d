"""The recordings of the repertoire: who says what, how it sounds, and when each word is heard.

Made by `python -m recipes.nano.bank`; reading it needs no synthesiser.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from jaxtyping import Float32

from mimi_jax import read_audio
from moshi_jax.nano.sentences import Ending, Kind, Line, Speaker, Split

SAMPLE_RATE = 24_000
"""Hz, of what is read; the file has less."""


class Timed(NamedTuple):
    """A word or a phone, and when it is heard, in seconds from the recording's first sample."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One part of a line, spoken once.

    Attributes:
      speaker: who speaks.
      text: the part's words.
      ending: "fall" at the end of a turn, "level" before a pause. The agent's voice has no melody.
      kind: of the first line that has this part.
      split: "train" if any training line has it.
      variant: 0, 1, ... of the same part in other manners.
      pcm: float32 [S] at 24 kHz, silence trimmed. The agent's utterances must start on the frame
        grid (multiples of 1920 samples): that is how the codec knows the agent's voice.
      words: in order.
      phones: in order, names as in the CMU dictionary, lower case.
    """

    speaker: Speaker
    text: str
    ending: Ending
    kind: Kind
    split: Split
    variant: int
    pcm: Float32[np.ndarray, " S"]
    words: tuple[Timed, ...]
    phones: tuple[Timed, ...]

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last sample."""
        return self.pcm.size / SAMPLE_RATE


class Bank:
    """All recordings, in file order."""

    def __init__(self, recordings: tuple[Recording, ...]) -> None:
        self.recordings = recordings
        self._index: dict[tuple[str, str, str], list[Recording]] = {}
        for recording in recordings:
            key = (recording.speaker, recording.text, recording.ending)
            self._index.setdefault(key, []).append(recording)

    def variants(self, speaker: Speaker, text: str, ending: Ending) -> tuple[Recording, ...]:
        """Every recording of one part.

        Raises:
          ValueError: there is none.
        """
        found = self._index.get((speaker, text, ending))
        if not found:
            raise ValueError(
                f"the bank has no {text!r} of the {speaker} ending {ending!r}; parts come from "
                "moshi_jax.nano.sentences, recordings from python -m recipes.nano.bank"
            )
        return tuple(found)

    def spoken(self, line: Line) -> Iterator[tuple[Recording, ...]]:
        """The variants of each part of a line, in order."""
        for part, ending in zip(line.parts, line.endings, strict=True):
            yield self.variants(line.speaker, part, ending)


def bank_folder() -> Path:
    """Where `bank.flac` and `bank.json` are."""
    return Path(str(files("moshi_jax.nano") / "bank"))


@functools.cache
def read_bank(folder: Path | None = None) -> Bank:
    """Reads a bank once.

    Args:
      folder: None for the embedded one.

    Raises:
      FileNotFoundError: the folder has no bank.
      ValueError: audio and times do not belong together.
    """
    folder = folder or bank_folder()
    times = json.loads((folder / "bank.json").read_text(encoding="utf-8"))
    pcm = read_audio(folder / "bank.flac", sample_rate=SAMPLE_RATE, channels=1)[0]
    ratio = SAMPLE_RATE / times["sample_rate_hz"]
    length = round(times["samples"] * ratio)
    if length != pcm.size:
        raise ValueError(
            f"{folder}: bank.json tells of {length} samples at {SAMPLE_RATE} Hz, bank.flac has "
            f"{pcm.size}; run python -m recipes.nano.bank {folder}"
        )
    pcm = pcm * np.float32(times["gain"])
    return Bank(tuple(_recording(entry, pcm, ratio) for entry in times["recordings"]))


def _recording(entry: dict, pcm: Float32[np.ndarray, " S"], ratio: float) -> Recording:
    if entry["speaker"] not in get_args(Speaker):
        raise ValueError(f"a recording of {entry['speaker']!r}, expected {get_args(Speaker)}")
    return Recording(
        speaker=entry["speaker"],
        text=entry["text"],
        ending=entry["ending"],
        kind=entry["kind"],
        split=entry["split"],
        variant=entry["variant"],
        pcm=pcm[round(entry["start"] * ratio) : round(entry["end"] * ratio)],
        words=tuple(Timed(*item) for item in entry["words"]),
        phones=tuple(Timed(*item) for item in entry["phones"]),
    )
