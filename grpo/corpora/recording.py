"""One conversation of a corpus: two channels on one clock, who speaks, and what is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from grpo.corpora.pcm import HIGHEST_RATE, LOWEST_RATE, AudioRef, Pcm, open_pcm

# Two files of one conversation may differ by this much: recorders stop one after the other.
LENGTH_SLACK_S = 0.5


class Word(NamedTuple):
    """A word or a phrase of a transcript, seconds of the recording."""

    text: str
    start_s: float
    end_s: float


TwoTranscripts = tuple[list[Word], list[Word]]
"""What is said on channels 0 and 1, by start."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Where a conversation lies; nothing of it is open yet. Goes to worker processes as it is.

    Attributes:
        name: unique in the corpus; the conversation of its segments.
        channels: where each speaker's channel lies: the file, and which of its channels.
        speakers: names in the corpus, None where unknown. Conversations that share one never
            stand on both sides of the split.
        transcript: reads what is said; None where the corpus has no transcript of it.
    """

    name: str
    channels: tuple[tuple[AudioRef, int], tuple[AudioRef, int]]
    speakers: tuple[str | None, str | None] = (None, None)
    transcript: Callable[[], TwoTranscripts] | None = None

    @property
    def two_files(self) -> bool:
        """Whether the channels come from two recorders, whose clocks have to be compared."""
        return self.channels[0][0] != self.channels[1][0]

    @contextmanager
    def open(self) -> Iterator[TwoChannelPcm]:
        """Opens the audio.

        Raises:
            FileNotFoundError, ValueError, ImportError: as `open_pcm`.
            ValueError: not two channels, or two files that cannot be one conversation.
        """
        (first, left), (second, right) = self.channels
        with ExitStack() as stack:
            one = stack.enter_context(open_pcm(first))
            other = stack.enter_context(open_pcm(second)) if self.two_files else one
            yield TwoChannelPcm(self.name, (one, left), (other, right), two_files=self.two_files)


class TwoChannelPcm:
    """Open audio of a conversation.

    Attributes:
        sample_rate: of both channels.
        num_samples: of the longer channel; the other one is followed by silence.
    """

    def __init__(
        self, name: str, first: tuple[Pcm, int], second: tuple[Pcm, int], *, two_files: bool
    ) -> None:
        self._name, self._parts = name, (first, second)
        (one, _), (other, _) = first, second
        expected = 1 if two_files else 2
        for pcm in (one, other):
            if pcm.channels != expected:
                raise ValueError(
                    f"{name}: got {pcm.channels} channel(s), expected {expected}; give one speaker"
                    " on each channel"
                )
        if one.sample_rate != other.sample_rate:
            raise ValueError(
                f"{name}: got {one.sample_rate} and {other.sample_rate} Hz, expected one rate for"
                " both speakers; resample one of the files"
            )
        if not LOWEST_RATE <= one.sample_rate <= HIGHEST_RATE:
            raise ValueError(
                f"{name}: got {one.sample_rate} Hz, expected {LOWEST_RATE}..{HIGHEST_RATE} Hz; fix"
                " the header"
            )
        apart_s = abs(one.num_samples - other.num_samples) / one.sample_rate
        if apart_s > LENGTH_SLACK_S:
            raise ValueError(
                f"{name}: got channels whose lengths differ by {apart_s:.2f} s, expected at most"
                f" {LENGTH_SLACK_S} s; they cannot share a clock"
            )
        self.sample_rate = one.sample_rate
        self.num_samples = max(one.num_samples, other.num_samples)

    def read(self, start: int, count: int) -> Float32[np.ndarray, "2 N"]:
        """Samples from `start` on, fewer at the end.

        Raises:
            ValueError: unreadable, or not finite.
        """
        (one, left), (other, right) = self._parts
        if one is other:
            pcm = one.read(start, count)[[left, right]]
        else:
            rows = [one.read(start, count)[left], other.read(start, count)[right]]
            length = max(map(len, rows))
            pcm = np.stack([np.pad(row, (0, length - len(row))) for row in rows])
        finite = np.isfinite(pcm)
        if not finite.all():
            channel, sample = np.argwhere(~finite)[0]
            raise ValueError(
                f"{self._name}: got a NaN or infinite sample, the first at channel {channel} sample"
                f" {start + sample}, expected finite values; repair the audio"
            )
        return pcm

    def blocks(self, seconds: float) -> Iterator[Float32[np.ndarray, "2 N"]]:
        """The whole audio in order.

        Raises:
            ValueError: as `read`, or no samples at all.
        """
        start, size = 0, round(seconds * self.sample_rate)
        while (block := self.read(start, size)).shape[1]:
            yield block
            start += block.shape[1]
        if start == 0:
            raise ValueError(
                f"{self._name}: got no samples, expected at least one; check that the recording is"
                " complete"
            )


class BadFile(NamedTuple):
    """Something of a corpus that was passed over."""

    name: str
    reason: str


@dataclass(kw_only=True)
class Listing:
    """What a corpus consists of, by name, and what in it is no conversation."""

    recordings: list[Recording] = field(default_factory=list)
    bad: list[BadFile] = field(default_factory=list)


def checked_words(words: list[Word]) -> list[Word]:
    """The words by start.

    Raises:
        ValueError: a time is negative or not finite, or a word ends before it starts.
    """
    for word in words:
        if not 0 <= word.start_s <= word.end_s < float("inf"):
            raise ValueError(
                f"transcript: got {word.text!r} from {word.start_s} to {word.end_s} s, expected"
                " 0 <= start <= end"
            )
    return sorted(words, key=lambda word: (word.start_s, word.end_s))
