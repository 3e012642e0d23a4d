"""Pure functions of speech intervals: what a timeline of (start, end) pairs in seconds says.

An IPU (inter-pausal unit) is one interval of the voice activity detector. A *run* joins IPUs over
gaps too short to be heard as a stop; an *utterance* joins them over every pause a speaker makes
without giving up the turn (arXiv 2606.11167: silences up to 1 s).
"""

from collections.abc import Iterable
from itertools import pairwise

Interval = tuple[float, float]

TOLERANCE_S = 1e-6
"""Slack of every comparison of times: neither 0.3 nor 1 / 16000 is an exact float."""

RUN_GAP_S = 0.3
UTTERANCE_GAP_S = 1.0
MIN_PAUSE_S = 0.2


def length_s(interval: Interval) -> float:
    """Duration of one interval."""
    return interval[1] - interval[0]


def longer(interval: Interval, limit_s: float) -> bool:
    """Whether an interval is strictly longer than a limit."""
    return length_s(interval) > limit_s + TOLERANCE_S


def merge(intervals: Iterable[Interval], gap_s: float = 0.0) -> list[Interval]:
    """Join intervals with at most `gap_s` of silence between them.

    Args:
        intervals: of one speaker, in any order, overlapping or not.
        gap_s: a strictly longer silence separates.

    Returns:
        Sorted, disjoint intervals.
    """
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start - merged[-1][1] <= gap_s + TOLERANCE_S:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def runs(intervals: Iterable[Interval], gap_s: float = RUN_GAP_S) -> list[Interval]:
    """Join IPUs over the gaps of chopped speech, at most 0.3 s."""
    return merge(intervals, gap_s)


def utterances(intervals: Iterable[Interval], gap_s: float = UTTERANCE_GAP_S) -> list[Interval]:
    """Join IPUs over silences of at most 1 s; a strictly longer silence ends the utterance."""
    return merge(intervals, gap_s)


def pauses(
    intervals: Iterable[Interval],
    *,
    min_pause_s: float = MIN_PAUSE_S,
    utterance_gap_s: float = UTTERANCE_GAP_S,
) -> list[Interval]:
    """List the silences inside utterances.

    Args:
        intervals: IPUs of one speaker.
        min_pause_s: a shorter silence is articulation, not a pause.
        utterance_gap_s: a longer silence ends the utterance.
    """
    speech = merge(intervals)
    silences = [(end, start) for (_, end), (start, _) in pairwise(speech)]
    return [
        silence
        for silence in silences
        if length_s(silence) >= min_pause_s - TOLERANCE_S and not longer(silence, utterance_gap_s)
    ]


def clip(intervals: Iterable[Interval], start_s: float, end_s: float) -> list[Interval]:
    """Keep the parts inside [start_s, end_s], sorted."""
    inside = ((max(start, start_s), min(end, end_s)) for start, end in sorted(intervals))
    return [interval for interval in inside if longer(interval, 0.0)]


def shift(intervals: Iterable[Interval], by_s: float) -> list[Interval]:
    """Move intervals in time: `by_s = -segment_start_s` makes recording times segment times."""
    return [(start + by_s, end + by_s) for start, end in intervals]


def total_s(intervals: Iterable[Interval]) -> float:
    """Add up the time in which at least one of the intervals is active."""
    return sum(map(length_s, merge(intervals)), 0.0)
