"""Which parts of a two-channel recording train which axis: pure rules over speech intervals.

The rules are those of arXiv 2606.11167, section 3.1. What the paper leaves open (a lower bound of
the turn gap, the shortest pause, backchannels at the edge of an utterance) is a field of
`SegmentConfig` or is said where it is decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from grpo.segments import AXES, Segment, SegmentConfig, snap_to_grid, trim
from rewards.intervals import TOLERANCE_S, Interval, clip, length_s, longer, pauses, utterances


class _Utterance(NamedTuple):
    start_s: float
    end_s: float
    channel: int

    @property
    def interval(self) -> Interval:
        return (self.start_s, self.end_s)


class _Speech(NamedTuple):
    """One assignment of the roles: IPUs of both, and all utterances in the order they start."""

    user: Sequence[Interval]
    agent: Sequence[Interval]
    user_channel: int
    merged: list[_Utterance]


# A rule yields, for every candidate, a segment (its window and labels) or why it is none.
_Found = tuple[Interval, dict[str, Any]]
_Candidates = Iterator[_Found | str]


def extract_segments(
    ipus: tuple[Sequence[Interval], Sequence[Interval]],
    *,
    conversation: str,
    config: SegmentConfig,
    axes: Sequence[str] = AXES,
) -> tuple[list[Segment], Counter[str]]:
    """All segments of a recording, both speakers in turn the user, cut to length, on the grid.

    Args:
        ipus: speech intervals of channels 0 and 1, seconds in the recording.
        conversation: name of the recording, kept in the segments.
        config: thresholds.
        axes: which rules to apply.

    Returns:
        Segments sorted by axis, user channel and start; and how many candidates each rule turned
        down, keyed `axis/reason`.
    """
    segments, rejects = [], Counter[str]()
    for axis in axes:
        for x_channel in config.x_channels:
            found, why_not = find_segments(
                ipus[x_channel],
                ipus[1 - x_channel],
                axis,
                conversation=conversation,
                x_channel=x_channel,
                config=config,
            )
            rejects += why_not
            for segment in found:
                trimmed = trim(segment, config)
                if trimmed is None:
                    rejects[f"{axis}/nothing left after the cut to max_segment_s"] += 1
                else:
                    segments.append(snap_to_grid(trimmed))
    return segments, rejects


def find_segments(
    user: Sequence[Interval],
    agent: Sequence[Interval],
    axis: str,
    *,
    conversation: str,
    x_channel: int,
    config: SegmentConfig,
) -> tuple[list[Segment], Counter[str]]:
    """Segments of one axis under one assignment of the roles, with exact windows of any length.

    Args:
        user: speech intervals (IPUs) of the speaker who plays the user.
        agent: those of the speaker whose role the model will take.
        axis: one of `AXES`.
        conversation: name of the recording, kept in the segments.
        x_channel: the user's channel, kept in the segments.
        config: thresholds.

    Raises:
        ValueError: an unknown axis.
    """
    if axis not in _RULES:
        raise ValueError(f"axis: got {axis!r}, expected one of {', '.join(AXES)}")
    merged = sorted(
        _Utterance(*interval, channel)
        for channel, speech in ((x_channel, user), (1 - x_channel, agent))
        for interval in utterances(speech, config.max_gap_s)
    )
    segments, rejects = [], Counter[str]()
    for found in _RULES[axis](_Speech(user, agent, x_channel, merged), config):
        if isinstance(found, str):
            rejects[f"{axis}/{found}"] += 1
            continue
        (start_s, end_s), labels = found
        segments.append(
            Segment(
                axis=axis,
                conversation=conversation,
                x_channel=x_channel,
                start_s=start_s,
                end_s=end_s,
                labels=labels,
            )
        )
    return segments, rejects


def _pause(speech: _Speech, config: SegmentConfig) -> _Candidates:
    """A user utterance with a pause in it, through which the agent keeps silent."""
    gaps = pauses(speech.user, min_pause_s=config.min_pause_s, utterance_gap_s=config.max_gap_s)
    for turn in _users(speech):
        inside = clip(gaps, *turn.interval)
        if _short(turn, config.tau_pause_s):
            yield "shorter than tau_pause_s"
        elif not inside:
            yield "no pause of min_pause_s"
        elif clip(speech.agent, *turn.interval):
            yield "the agent speaks"
        else:
            yield turn.interval, {"pauses": inside}


def _turn(speech: _Speech, config: SegmentConfig) -> _Candidates:
    """A long user utterance, then, almost at once, a long one of the agent."""
    merged = speech.merged
    if config.ignore_backchannels:
        merged = [
            u
            for u in merged
            if u.channel == speech.user_channel or longer(u.interval, config.max_backchannel_s)
        ]
    for turn, answer in pairwise(merged):
        if turn.channel != speech.user_channel or answer.channel == speech.user_channel:
            continue
        gap_s = answer.start_s - turn.end_s
        if _short(turn, config.tau_turn_s) or _short(answer, config.tau_turn_s):
            yield "shorter than tau_turn_s"
        elif gap_s > config.turn_gap_s + TOLERANCE_S:
            yield "answer later than turn_gap_s"
        elif config.turn_gap_min_s is not None and gap_s < config.turn_gap_min_s - TOLERANCE_S:
            yield "answer earlier than turn_gap_min_s"
        elif answer.end_s <= turn.end_s + TOLERANCE_S:
            # Only without a lower bound of the gap: the turn's end would lie outside the window.
            yield "answer over before the turn"
        else:
            yield (turn.start_s, answer.end_s), {"user_turn_end_s": turn.end_s}


def _backchannel(speech: _Speech, config: SegmentConfig) -> _Candidates:
    """A user utterance during which the agent says only short things, at least one."""
    replies = [u.interval for u in speech.merged if u.channel != speech.user_channel]
    for turn in _users(speech):
        during = [reply for reply in replies if clip([reply], *turn.interval)]
        if _short(turn, config.tau_backchannel_s):
            yield "shorter than tau_backchannel_s"
        elif not during and config.backchannel_required:
            yield "no backchannel"
        elif any(longer(reply, config.max_backchannel_s) for reply in during):
            yield "the agent says more than max_backchannel_s"
        elif config.backchannel_inside and not all(_inside(r, turn.interval) for r in during):
            yield "a backchannel reaches out of the utterance"
        else:
            yield turn.interval, {"backchannels": clip(during, *turn.interval)}


def _interruption(speech: _Speech, config: SegmentConfig) -> _Candidates:
    """User, agent, user, agent, where the second user utterance starts into the agent's first."""
    rows = (speech.merged[i : i + 4] for i in range(len(speech.merged) - 3))
    for row in rows:
        if [u.channel == speech.user_channel for u in row] != [True, False, True, False]:
            continue
        first, talk, barge_in, answer = row
        if any(_short(utterance, config.tau_interruption_s) for utterance in row):
            yield "shorter than tau_interruption_s"
        elif barge_in.start_s >= talk.end_s - TOLERANCE_S:
            yield "the user waits for the end"
        elif answer.end_s <= barge_in.end_s + TOLERANCE_S:
            yield "answer over before the interruption"
        else:
            yield (first.start_s, answer.end_s), {"interruption": barge_in.interval}


_RULES = {
    "pause": _pause,
    "turn": _turn,
    "backchannel": _backchannel,
    "interruption": _interruption,
}


def _users(speech: _Speech) -> list[_Utterance]:
    return [u for u in speech.merged if u.channel == speech.user_channel]


def _short(utterance: _Utterance, tau_s: float) -> bool:
    return length_s(utterance.interval) < tau_s - TOLERANCE_S


def _inside(interval: Interval, outer: Interval) -> bool:
    return interval[0] >= outer[0] - TOLERANCE_S and interval[1] <= outer[1] + TOLERANCE_S
