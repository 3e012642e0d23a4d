"""What a segment is: a window of a two-channel recording that trains one axis, and its limits.

One speaker plays the user (X: what the model hears), the other the agent (Y: the role the model
takes). `grpo/segment_rules.py` finds the windows; here they get a length and a place on the grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rewards.intervals import MIN_PAUSE_S, TOLERANCE_S, UTTERANCE_GAP_S, Interval

AXES = ("pause", "turn", "backchannel", "interruption")
SAMPLE_RATE, FRAME_SAMPLES = 24_000, 1_920  # of Mimi, hence of every token stream
FRAME_RATE_HZ = SAMPLE_RATE / FRAME_SAMPLES  # 12.5

# How a window that is too long is cut, as parts of `max_segment_s`: 20 s up to the end of the
# user's turn and 10 s after it; 12 s up to the barge-in and 10 s after its end.
_TURN_BEFORE, _INTERRUPTION_BEFORE, _AFTER = 2 / 3, 2 / 5, 1 / 3


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """Thresholds of the rules, in seconds; `tau_*` is the shortest utterance an axis accepts.

    Where the paper (arXiv 2606.11167, section 3.1) is silent, its literal reading is
    `min_pause_s=0`, `turn_gap_min_s=None`, `max_segment_s=None`.
    """

    tau_pause_s: float = 4.0
    tau_turn_s: float = 5.0
    tau_backchannel_s: float = 5.0
    tau_interruption_s: float = 3.0
    max_gap_s: float = UTTERANCE_GAP_S  # a strictly longer silence ends an utterance
    min_pause_s: float = MIN_PAUSE_S  # a shorter silence is articulation; 0: any the detector sees
    turn_gap_s: float = 0.4  # the longest silence between the user's turn and the answer
    turn_gap_min_s: float | None = -0.4  # the largest overlap; None: any, as the paper's text
    ignore_backchannels: bool = False  # short words of the agent do not part a turn and its answer
    max_backchannel_s: float = 1.0
    backchannel_required: bool = True  # False: also where the agent listens without a word
    backchannel_inside: bool = True  # False: one may reach out of the utterance, and is cut
    max_segment_s: float | None = 30.0  # longer windows are cut; None keeps them
    x_channels: tuple[int, ...] = (0, 1)  # which channels play the user: both in turn

    def __post_init__(self) -> None:
        positive = {
            name: getattr(self, name)
            for name in ("max_gap_s", "max_backchannel_s", "max_segment_s")
        }
        for name, value in positive.items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}: got {value}, expected a positive number of seconds")
        if not (math.isfinite(self.min_pause_s) and self.min_pause_s >= 0):
            raise ValueError(f"min_pause_s: got {self.min_pause_s}, expected 0 or more seconds")
        if self.x_channels not in ((0,), (1,), (0, 1)):
            raise ValueError(f"x_channels: got {self.x_channels}, expected (0,), (1,) or (0, 1)")
        for axis in AXES:
            if not (math.isfinite(self.tau_s(axis)) and self.tau_s(axis) >= 0):
                raise ValueError(
                    f"tau_{axis}_s: got {self.tau_s(axis)}, expected 0 or more seconds"
                )
        if self.turn_gap_min_s is not None and not self.turn_gap_min_s <= self.turn_gap_s:
            raise ValueError(
                f"turn_gap_min_s: got {self.turn_gap_min_s}, expected at most turn_gap_s"
                f" {self.turn_gap_s}"
            )

    def tau_s(self, axis: str) -> float:
        """The shortest utterance an axis accepts."""
        return getattr(self, f"tau_{axis}_s")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A window of one conversation that trains one axis.

    Attributes:
        axis: one of `AXES`.
        conversation: name of the recording.
        x_channel: 0 or 1, the channel of the user; the agent's is the other one.
        start_s: start in the recording.
        end_s: end in the recording.
        labels: seconds in the recording; `pauses` (list of intervals), `user_turn_end_s`,
            `backchannels` (list of intervals) or `interruption` (an interval), by axis.
        user_ipus: speech of the user that touches the window or its context, seconds in the
            recording.
        agent_ipus: the same of the real partner.
    """

    axis: str
    conversation: str
    x_channel: int
    start_s: float
    end_s: float
    labels: Mapping[str, Any]
    user_ipus: tuple[Interval, ...] = ()
    agent_ipus: tuple[Interval, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length of the window."""
        return self.end_s - self.start_s

    @property
    def start_frame(self) -> int:
        """First codec frame, exact once the window lies on the grid."""
        return round(self.start_s * FRAME_RATE_HZ)

    @property
    def num_frames(self) -> int:
        """Codec frames of the window, exact once it lies on the grid."""
        return round(self.end_s * FRAME_RATE_HZ) - self.start_frame

    def relative_labels(self) -> dict[str, Any]:
        """The labels in seconds from the start of the window."""

        def shift(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return tuple(shift(item) for item in value)
            return value - self.start_s

        return {name: shift(value) for name, value in self.labels.items()}


def trim(segment: Segment, config: SegmentConfig) -> Segment | None:
    """Cuts a window longer than `max_segment_s`; what is cut off in front is left as context.

    "pause" and "backchannel" keep the last part that begins outside a labelled event; "turn" and
    "interruption" keep fixed parts around the labelled turn.

    Returns:
        The window, or None where the cut leaves no event, too little of the utterance, or (an
        interruption of more than a quarter of a minute) still too much.
    """
    limit_s = config.max_segment_s
    if limit_s is None or segment.duration_s <= limit_s + TOLERANCE_S:
        return segment
    if segment.axis in ("pause", "backchannel"):
        ((name, events),) = segment.labels.items()
        start_s = segment.end_s - limit_s
        start_s = max([start_s, *(end for start, end in events if start < start_s < end)])
        left = [event for event in events if event[0] >= start_s - TOLERANCE_S]
        cut = replace(segment, start_s=start_s, labels={name: left})
        kept = (bool(left) or not events) and cut.duration_s >= config.tau_s(
            segment.axis
        ) - TOLERANCE_S
        return cut if kept else None
    if segment.axis == "turn":
        turn_start_s = turn_end_s = segment.labels["user_turn_end_s"]
        before = _TURN_BEFORE
    else:
        turn_start_s, turn_end_s = segment.labels["interruption"]
        before = _INTERRUPTION_BEFORE
    cut = replace(
        segment,
        start_s=max(segment.start_s, turn_start_s - before * limit_s),
        end_s=min(segment.end_s, turn_end_s + _AFTER * limit_s),
    )
    return cut if cut.duration_s <= limit_s + TOLERANCE_S else None


def snap_to_grid(segment: Segment) -> Segment:
    """Widens the window to whole frames of 80 ms; the labels stay as they are."""
    slack = TOLERANCE_S * FRAME_RATE_HZ
    start_frame = math.floor(segment.start_s * FRAME_RATE_HZ + slack)
    end_frame = math.ceil(segment.end_s * FRAME_RATE_HZ - slack)
    return replace(segment, start_s=start_frame / FRAME_RATE_HZ, end_s=end_frame / FRAME_RATE_HZ)
