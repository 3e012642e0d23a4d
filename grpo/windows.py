"""Which frames carry the loss: the whole segment, or only those around its events."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

Interval = tuple[float, float]


@dataclass(frozen=True)
class EventWindows:
    """From `lead_s` before an event to `tail_s` after it (DuplexPO, arXiv 2607.07148)."""

    lead_s: float
    tail_s: float


def events_of(labels: dict[str, Any]) -> list[Interval]:
    """The events that a segment's labels name, in seconds on the labels' clock.

    A pause, a backchannel or an interruption is one from its onset to its offset; the end of a
    turn is one of no length.
    """
    events: list[Interval] = [*labels.get("pauses", ()), *labels.get("backchannels", ())]
    if "user_turn_end_s" in labels:
        events.append((labels["user_turn_end_s"],) * 2)
    if "interruption" in labels:
        events.append(labels["interruption"])
    return [(float(start), float(end)) for start, end in events]


def loss_mask(
    length: int,
    segment_start_frame: int,
    num_frames: int,
    events: Sequence[Interval],
    windows: EventWindows | None,
    frame_s: float,
) -> Bool[np.ndarray, " T"]:
    """The frames of a rollout that carry loss.

    Args:
        length: T.
        segment_start_frame: first frame of the segment; prefix and context lie before it.
        num_frames: frames that were rolled out, the segment's last one included.
        events: of the segment, in seconds from its start.
        windows: None takes the whole segment. A frame counts if it overlaps a window.
        frame_s: seconds a frame.
    """
    frames = np.arange(length)
    inside = (frames >= segment_start_frame) & (frames < num_frames)
    if windows is None:
        return inside
    starts_s = (frames - segment_start_frame) * frame_s
    near = np.zeros(length, bool)
    for start_s, end_s in events:
        after_lead = starts_s + frame_s > start_s - windows.lead_s
        near |= after_lead & (starts_s < end_s + windows.tail_s)
    return inside & near
