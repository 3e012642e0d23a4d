"""Frames with loss."""

import numpy as np
import pytest

from grpo.windows import EventWindows, events_of, loss_mask

LABELS = [
    ({"pauses": [(1.0, 1.5), (3.0, 3.2)]}, [(1.0, 1.5), (3.0, 3.2)]),
    ({"user_turn_end_s": 4.0}, [(4.0, 4.0)]),
    ({"backchannels": ((2.0, 2.4),)}, [(2.0, 2.4)]),
    ({"interruption": (2.0, 5.0)}, [(2.0, 5.0)]),
    ({}, []),
]


@pytest.mark.parametrize(("labels", "expected"), LABELS)
def test_labels_name_events(labels, expected):
    assert events_of(labels) == expected


def test_without_windows_the_segment_counts():
    mask = loss_mask(10, 3, 8, [(0.0, 0.1)], None, 0.08)
    assert np.flatnonzero(mask).tolist() == [3, 4, 5, 6, 7]


def test_a_window_reaches_from_its_lead_to_its_tail():
    """Event at 0.8 s of the segment, which starts at frame 5: frames of 0.64 up to 1.04 s."""
    mask = loss_mask(40, 5, 30, [(0.8, 0.8)], EventWindows(0.16, 0.24), 0.08)
    assert np.flatnonzero(mask).tolist() == [13, 14, 15, 16, 17]


def test_windows_stay_in_the_segment_and_may_overlap():
    events = [(0.0, 0.1), (0.3, 0.5), (9.0, 9.5)]
    mask = loss_mask(20, 5, 12, events, EventWindows(1.0, 0.08), 0.08)
    assert np.flatnonzero(mask).tolist() == list(range(5, 12))
    assert not loss_mask(20, 5, 12, [], EventWindows(1.0, 1.0), 0.08).any()
