import dataclasses
import json
import math

import pytest

from rewards import Dialogue


def test_channels_are_sorted_and_frozen():
    dialogue = Dialogue(duration_s=5.0, agent=((3.0, 4.0), (-1.0, 0.5)), user=((1.0, 2.0),))
    assert dialogue.agent == ((-1.0, 0.5), (3.0, 4.0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(dialogue, "agent", ())  # noqa: B010  (a type checker refuses the plain form)


def test_json_round_trip():
    for dialogue in (
        Dialogue(duration_s=2.5),
        Dialogue(
            duration_s=12.0,
            agent=((-0.5, 0.25), (7.0, 13.0)),
            user=((0.0, 6.5),),
            user_turn_end_s=6.5,
            interruption=(2.0, 3.0),
            backchannels=(),
            labels={"greeting_s": 1.0, "sighs": ((2.0, 2.5),)},
        ),
    ):
        assert Dialogue.from_dict(json.loads(json.dumps(dialogue.to_dict()))) == dialogue


def test_from_dict_takes_whole_numbers_and_null_labels():
    dialogue = Dialogue.from_dict(
        {"duration_s": 9, "agent": [[1, 2]], "user_turn_end_s": 3, "backchannels": None}
    )
    assert dialogue == Dialogue(duration_s=9.0, agent=((1.0, 2.0),), user_turn_end_s=3.0)
    assert isinstance(dialogue.agent[0][0], float)
    assert "backchannels" not in dialogue.to_dict()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"duration_s": 0.0}, "positive"),
        ({"duration_s": math.nan}, "positive"),
        ({"duration_s": math.inf}, "positive"),
        ({"agent": ((2.0, 1.0),)}, r"agent has interval \(2.0, 1.0\)"),
        ({"agent": ((2.0, 2.0),)}, "start < end"),
        ({"user": ((0.0, math.inf),)}, "user has interval"),
        ({"backchannels": ((math.nan, 1.0),)}, "backchannels has interval"),
        ({"interruption": (3.0, 2.0)}, "interruption has interval"),
        ({"interruption": (3.0, 9.5)}, "interruption end is 9.5 s"),
        ({"interruption": (-1.0, 2.0)}, "interruption start is -1.0 s"),
        ({"user_turn_end_s": 9.1}, "user_turn_end_s is 9.1 s"),
        ({"user_turn_end_s": -0.1}, "in the segment"),
        ({"user_turn_end_s": math.nan}, "in the segment"),
        ({"agent": ((1.0, 3.0), (2.0, 4.0))}, "agent has overlapping intervals"),
        ({"user": ((2.0, 4.0), (1.0, 2.1))}, "user has overlapping intervals"),
        ({"backchannels": ((8.5, 9.5),)}, "a time of backchannels is 9.5 s"),
        ({"labels": {"sighs": ((1.0, 9.5),)}}, "label sighs is 9.5 s"),
        ({"labels": {"greeting_s": -1.0}}, "label greeting_s is -1.0 s"),
    ],
)
def test_impossible_times_are_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        Dialogue.from_dict({"duration_s": 9.0, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "'duration_s' is missing"),
        ({"duration_s": 9, "agents": []}, "unknown field 'agents', expected duration_s, agent"),
        ({"duration_s": "9"}, "duration_s has '9', expected a number"),
        ({"duration_s": True}, "duration_s has True"),
        ({"duration_s": 9, "agent": [1, 2]}, r"agent has 1, expected an interval"),
        ({"duration_s": 9, "agent": [[1, 2, 3]]}, "expected an interval"),
        ({"duration_s": 9, "agent": "12"}, "expected a list of intervals"),
        ({"duration_s": 9, "agent": ["12"]}, "expected an interval"),
        ({"duration_s": 9, "interruption": [[1, 2]]}, "expected an interval"),
        ({"duration_s": 9, "user": [[None, 2]]}, "user has None, expected a number"),
        ({"duration_s": 9, "labels": []}, "labels is .*, expected an object"),
        ({"duration_s": 9, "labels": {"sighs": [1]}}, "sighs has 1, expected an interval"),
    ],
)
def test_from_dict_names_what_is_wrong(fields, message):
    with pytest.raises(ValueError, match=message):
        Dialogue.from_dict(fields)


def test_touching_intervals_are_disjoint():
    assert Dialogue(duration_s=5.0, agent=((1.0, 2.0), (2.0, 3.0))).agent[1] == (2.0, 3.0)


def test_labels_of_a_segment_find_their_place():
    dialogue = Dialogue.of_segment(
        duration_s=9.0,
        agent=((1.0, 2.0),),
        labels={"user_turn_end_s": 7.0, "user_backchannels": ((3.0, 3.5),)},
    )
    assert dialogue == Dialogue(
        duration_s=9.0,
        agent=((1.0, 2.0),),
        user_turn_end_s=7.0,
        labels={"user_backchannels": ((3.0, 3.5),)},
    )
