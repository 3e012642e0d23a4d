"""Windows of segments: limits of the configuration, cuts of long ones, the 80 ms grid."""

import dataclasses

import pytest

from grpo.segments import Segment, SegmentConfig, snap_to_grid, trim

CONFIG = SegmentConfig()


def segment(axis, start_s, end_s, **labels):
    return Segment(
        axis=axis, conversation="c", x_channel=1, start_s=start_s, end_s=end_s, labels=labels
    )


def trimmed(whole, config):
    cut = trim(whole, config)
    assert cut is not None
    return cut


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_segment_s", 0.0),
        ("max_segment_s", float("nan")),
        ("min_pause_s", -0.1),
        ("max_gap_s", float("inf")),
        ("tau_turn_s", -1.0),
        ("turn_gap_min_s", 0.5),
    ],
)
def test_impossible_limits_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: got .*, expected .*$"):
        SegmentConfig(**{field: value})


def test_segments_are_values():
    with pytest.raises(dataclasses.FrozenInstanceError):
        segment("pause", 0.0, 5.0, pauses=[]).start_s = 1.0  # type: ignore[misc]


def test_labels_relative_to_the_window():
    turn = segment("turn", 10.0, 22.0, user_turn_end_s=16.5)
    assert turn.relative_labels() == {"user_turn_end_s": 6.5}
    pause = segment("pause", 10.0, 16.0, pauses=[[12.0, 12.5], [14.0, 14.25]])
    assert pause.relative_labels() == {"pauses": ((2.0, 2.5), (4.0, 4.25))}
    barge_in = segment("interruption", 10.0, 30.0, interruption=(15.0, 19.0))
    assert barge_in.relative_labels() == {"interruption": (5.0, 9.0)}


@pytest.mark.parametrize(
    ("start_s", "end_s", "first", "count"),
    [
        (0.0, 5.0, 0, 63),  # 62.5 frames
        (0.08, 0.16, 1, 1),
        (63 * 0.08, 126 * 0.08, 63, 63),  # 5.04 and 10.08 are not exact floats
        (0.079, 0.161, 0, 3),
        (0.16 - 1e-8, 0.32 + 1e-8, 2, 2),  # within the tolerance of every comparison
    ],
)
def test_the_grid_widens_and_never_narrows(start_s, end_s, first, count):
    snapped = snap_to_grid(segment("pause", start_s, end_s, pauses=[]))
    assert (snapped.start_frame, snapped.num_frames) == (first, count)
    assert snapped.start_s == pytest.approx(first * 0.08, abs=1e-12)
    assert snapped.end_s == pytest.approx((first + count) * 0.08, abs=1e-12)
    assert snap_to_grid(snapped) == snapped


@pytest.mark.parametrize("axis", ["pause", "turn", "backchannel", "interruption"])
def test_a_window_of_the_limit_is_left_alone(axis):
    whole = segment(axis, 5.0, 35.0, user_turn_end_s=30.0)
    assert trim(whole, CONFIG) is whole


def test_without_a_limit_nothing_is_cut():
    whole = segment("pause", 0.0, 90.0, pauses=[(1.0, 1.5)])
    assert trim(whole, SegmentConfig(max_segment_s=None)) is whole


def test_a_pause_window_keeps_its_end_and_the_events_in_it():
    long = segment("pause", 0.0, 50.0, pauses=[(5.0, 5.5), (25.0, 25.6), (48.0, 48.5)])
    cut = trimmed(long, CONFIG)
    assert (cut.start_s, cut.end_s) == (20.0, 50.0)
    assert cut.labels == {"pauses": [(25.0, 25.6), (48.0, 48.5)]}


def test_a_cut_never_goes_through_an_event():
    long = segment("backchannel", 0.0, 50.0, backchannels=[(19.8, 20.4), (30.0, 30.4)])
    cut = trimmed(long, CONFIG)
    assert (cut.start_s, cut.end_s) == (20.4, 50.0)
    assert cut.labels == {"backchannels": [(30.0, 30.4)]}


def test_a_cut_without_an_event_left_is_no_segment():
    assert trim(segment("pause", 0.0, 50.0, pauses=[(5.0, 5.5)]), CONFIG) is None


def test_a_cut_shorter_than_the_axis_accepts_is_no_segment():
    long = segment("pause", 0.0, 50.0, pauses=[(48.0, 48.5)])
    assert trim(long, SegmentConfig(max_segment_s=3.0)) is None


def test_a_turn_keeps_twenty_seconds_before_and_ten_after_its_end():
    cut = trimmed(segment("turn", 0.0, 60.0, user_turn_end_s=35.0), CONFIG)
    assert (cut.start_s, cut.end_s) == (pytest.approx(15.0), pytest.approx(45.0))
    cut = trimmed(segment("turn", 0.0, 60.0, user_turn_end_s=15.0), CONFIG)
    assert (cut.start_s, cut.end_s) == (0.0, pytest.approx(25.0))


def test_an_interruption_keeps_twelve_seconds_before_and_ten_after():
    cut = trimmed(segment("interruption", 0.0, 60.0, interruption=(30.0, 36.0)), CONFIG)
    assert (cut.start_s, cut.end_s) == (pytest.approx(18.0), pytest.approx(46.0))
    assert trim(segment("interruption", 0.0, 60.0, interruption=(30.0, 39.0)), CONFIG) is None
