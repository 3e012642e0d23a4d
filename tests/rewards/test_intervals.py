import pytest

from rewards import clip, merge, pauses, runs, shift, total_s, utterances


def test_merge_sorts_and_joins_over_small_gaps():
    speech = [(5.0, 6.0), (0.0, 1.0), (1.25, 2.0), (0.5, 1.1)]
    assert merge(speech) == [(0.0, 1.1), (1.25, 2.0), (5.0, 6.0)]
    assert merge(speech, 0.15) == [(0.0, 2.0), (5.0, 6.0)]
    assert merge([], 1.0) == []


def test_merge_keeps_the_longer_end_of_a_contained_interval():
    assert merge([(0.0, 4.0), (1.0, 2.0), (4.5, 5.0)], 0.5) == [(0.0, 5.0)]


@pytest.mark.parametrize(("join", "gap"), [(runs, 0.3), (utterances, 1.0)])
def test_a_gap_of_exactly_the_limit_joins_and_a_longer_one_splits(join, gap):
    first, start = (0.1, 1.1), 1.1 + gap  # 0.3 and 1.1 + 0.3 are not exact floats
    assert join([first, (start, 3.0)]) == [(0.1, 3.0)]
    assert join([first, (start + 1e-3, 3.0)]) == [first, (start + 1e-3, 3.0)]


def test_pauses_are_inner_silences_of_utterances():
    speech = [(0.0, 1.0), (1.15, 2.0), (2.2, 3.0), (4.0, 5.0), (6.1, 7.0)]
    # 0.15 s is too short, 1.1 s ends the utterance; both limits belong to the pauses.
    assert pauses(speech) == [(2.0, 2.2), (3.0, 4.0)]
    assert pauses(speech, min_pause_s=0.1, utterance_gap_s=0.5) == [(1.0, 1.15), (2.0, 2.2)]
    assert pauses([(0.0, 5.0), (1.0, 2.0), (2.6, 3.0)]) == []  # silence only in the second entry


def test_clip_keeps_what_is_inside():
    speech = [(-2.0, 0.0), (-1.0, 0.5), (1.0, 2.0), (3.0, 9.0), (5.0, 6.0)]
    assert clip(speech, 0.0, 4.0) == [(0.0, 0.5), (1.0, 2.0), (3.0, 4.0)]


def test_shift_then_clip_makes_segment_times():
    recording = [(9.0, 10.5), (12.0, 13.0)]
    assert clip(shift(recording, -10.0), 0.0, 2.5) == [(0.0, 0.5), (2.0, 2.5)]


def test_total_counts_overlap_once():
    assert total_s([(0.0, 2.0), (1.0, 3.0), (4.0, 4.5)]) == pytest.approx(3.5)
    assert total_s([]) == 0.0
