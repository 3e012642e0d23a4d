"""The four rules: recorded worked examples, both assignments, borders, and reasons of rejection."""

import json
from pathlib import Path

import pytest

from grpo.segment_rules import extract_segments, find_segments
from grpo.segments import AXES, SegmentConfig

CONFIG = SegmentConfig()
AXIS_OF = {"pause": "pause", "turn": "turn", "bc": "backchannel", "int": "interruption"}
LABEL_OF = {"pauses": "pauses", "t_end": "user_turn_end_s", "gt": "backchannels"}


def examples():
    file = Path(__file__).resolve().parents[1] / "golden" / "reward_examples.json"
    return json.loads(file.read_text())["segment_extraction"]


def intervals(values):
    return [(float(start), float(end)) for start, end in values]


def find(user, agent, axis, config=CONFIG):
    return find_segments(
        intervals(user), intervals(agent), axis, conversation="c", x_channel=0, config=config
    )


def windows(user, agent, axis, config=CONFIG):
    return [(s.start_s, s.end_s, s.labels) for s in find(user, agent, axis, config)[0]]


def plain(segment):
    return (segment.axis, segment.start_s, segment.end_s, json.dumps(dict(segment.labels)))


def expected(values):
    labels = {LABEL_OF[name]: value for name, value in values.items() if name in LABEL_OF}
    labels = {
        name: [[float(t) for t in pair] for pair in value] if isinstance(value, list) else value
        for name, value in labels.items()
    }
    return (AXIS_OF[values["axis"]], values["start"], values["end"], json.dumps(labels))


@pytest.mark.parametrize("example", examples(), ids=lambda example: example["name"])
def test_worked_examples(example):
    assert example["params"] == {}
    found = [
        segment for axis in AXES for segment in find(example["x_ipus"], example["y_ipus"], axis)[0]
    ]
    assert [plain(segment) for segment in found] == [expected(e) for e in example["expected"]]


def test_there_are_worked_examples():
    assert len(examples()) >= 9


def test_pause_borders():
    """4.0 s is enough, 0.2 s is a pause, 1.0 s is no boundary: with floats that are not exact."""
    user = [(0.1, 1.1), (1.3, 2.4), (3.4, 4.1)]  # 1.3 - 1.1 < 0.2 and 3.4 - 2.4 == 1.0 as floats
    assert windows(user, [], "pause") == [(0.1, 4.1, {"pauses": [(1.1, 1.3), (2.4, 3.4)]})]
    assert windows([(0.0, 2.0), (2.19, 6.0)], [], "pause") == []
    assert find([(0.0, 2.0), (2.5, 3.9)], [], "pause")[1] == {"pause/shorter than tau_pause_s": 1}
    assert find([(0.0, 6.0)], [], "pause")[1] == {"pause/no pause of min_pause_s": 1}


def test_pause_needs_a_silent_agent_only_during_the_utterance():
    user = [(10.0, 12.0), (12.5, 15.0)]
    assert len(windows(user, [(3.0, 10.0), (15.0, 20.0)], "pause")) == 1
    segments, rejects = find(user, [(14.9, 20.0)], "pause")
    assert (segments, rejects) == ([], {"pause/the agent speaks": 1})


@pytest.mark.parametrize(
    ("answer_start_s", "reason"),
    [
        (6.4, None),
        (6.41, "turn/answer later than turn_gap_s"),
        (5.6, None),
        (5.59, "turn/answer earlier than turn_gap_min_s"),
    ],
)
def test_turn_gap_borders(answer_start_s, reason):
    segments, rejects = find([(0, 6)], [(answer_start_s, 12)], "turn")
    assert rejects == ({} if reason is None else {reason: 1})
    assert len(segments) == (reason is None)


def test_turn_without_a_lower_bound_still_ends_after_the_turn():
    literal = SegmentConfig(turn_gap_min_s=None)
    found = windows([(0, 10)], [(4, 12)], "turn", literal)
    assert found == [(0.0, 12.0, {"user_turn_end_s": 10.0})]
    assert find([(0, 20)], [(4, 12)], "turn", literal)[1] == {"turn/answer over before the turn": 1}


def test_a_turn_is_a_pair_of_neighbours_in_the_merged_list():
    user = [(0, 6), (20, 26)]
    agent = [(6.2, 12), (26.3, 32)]
    assert windows(user, agent, "turn") == [
        (0.0, 12.0, {"user_turn_end_s": 6.0}),
        (20.0, 32.0, {"user_turn_end_s": 26.0}),
    ]


def test_backchannels_are_short_and_inside():
    user = [(0, 8)]
    assert windows(user, [(2, 3)], "backchannel") == [(0.0, 8.0, {"backchannels": [(2.0, 3.0)]})]
    for agent, reason in [
        ([(2, 3.1)], "the agent says more than max_backchannel_s"),
        ([(2, 2.5), (7.8, 8.2)], "a backchannel reaches out of the utterance"),
        ([(9, 9.5)], "no backchannel"),
    ]:
        segments, rejects = find(user, agent, "backchannel")
        assert (segments, rejects) == ([], {f"backchannel/{reason}": 1})


def test_interruption():
    user, agent = [(0, 4), (8, 12)], [(4.5, 9), (12.4, 16)]
    assert windows(user, agent, "interruption") == [(0.0, 16.0, {"interruption": (8.0, 12.0)})]
    for user, agent, reason in [
        ([(0, 4), (9.2, 12)], [(4.5, 9), (12.4, 16)], "shorter than tau_interruption_s"),
        ([(0, 4), (9, 13)], [(4.5, 9), (13.4, 17)], "the user waits for the end"),
        ([(0, 4), (8, 18)], [(4.5, 9), (10.5, 15)], "answer over before the interruption"),
    ]:
        segments, rejects = find(user, agent, "interruption")
        assert (segments, rejects) == ([], {f"interruption/{reason}": 1})


def test_both_speakers_play_the_user():
    first, second = [(0.0, 2.0), (2.6, 6.0)], [(6.3, 9.0), (9.5, 12.0)]
    segments, _ = extract_segments((first, second), conversation="call", config=CONFIG)
    found = [(s.axis, s.x_channel, s.start_frame, s.num_frames) for s in segments]
    assert found == [("pause", 0, 0, 75), ("pause", 1, 78, 72), ("turn", 0, 0, 150)]
    assert {s.conversation for s in segments} == {"call"}
    mirrored, _ = extract_segments((second, first), conversation="call", config=CONFIG)
    assert {(s.axis, 1 - s.x_channel, s.start_s) for s in mirrored} == {
        (s.axis, s.x_channel, s.start_s) for s in segments
    }


def test_long_windows_are_cut_and_hopeless_ones_counted():
    talk = [(0.0, 40.0), (40.5, 60.0)]
    segments, rejects = extract_segments(
        (talk, []), conversation="c", config=CONFIG, axes=["pause"]
    )
    assert [(s.start_s, s.end_s) for s in segments] == [(30.0, 60.0)]
    assert rejects == {}
    talk = [(0.0, 5.0), (5.5, 60.0)]
    segments, rejects = extract_segments(
        (talk, []), conversation="c", config=CONFIG, axes=["pause"]
    )
    assert segments == []
    assert rejects == {"pause/nothing left after the cut to max_segment_s": 1}


def test_an_unknown_axis():
    with pytest.raises(ValueError, match="axis: got 'bc', expected one of pause, turn"):
        find([], [], "bc")
