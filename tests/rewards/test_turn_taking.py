import pytest

from rewards import (
    Dialogue,
    TurnTakingConfig,
    response_delay_s,
    response_start_s,
    turn_taking,
)


def reward(agent, turn_end_s=7.0, duration_s=14.0, **config):
    dialogue = Dialogue.from_dict(
        {"duration_s": duration_s, "agent": agent, "user_turn_end_s": turn_end_s}
    )
    value = turn_taking(dialogue, TurnTakingConfig(**config)).value
    assert value is not None
    return value


def test_missing_without_a_turn_end():
    assert turn_taking(Dialogue(duration_s=5.0, agent=((1.0, 4.0),))).value is None


@pytest.mark.parametrize(
    ("early", "expected"),
    [("abs", -0.6), ("clamp", 0.0), ("after_only", -2.0), ("literal", 0.6)],
)
def test_modes_of_an_early_response(early, expected):
    # Starts 0.6 s early and goes on past the end; after 2 s there is another utterance.
    agent = [[6.4, 7.8], [9.0, 11.0]]
    assert reward(agent, early=early) == pytest.approx(expected)


def test_after_only_takes_the_next_run_of_the_same_utterance():
    assert reward([[6.4, 7.5], [7.9, 10.0]], early="after_only") == pytest.approx(-0.9)


def test_an_onset_at_the_end_of_the_turn_is_not_early():
    assert reward([[7.0, 9.0]], early="after_only") == 0.0


def test_chopped_speech_across_the_end_is_early_as_a_whole():
    agent = [[5.0, 6.9], [7.1, 9.0]]  # a gap of 0.2 s
    assert reward(agent) == pytest.approx(-2.0)
    assert reward(agent, run_gap_s=0.1) == pytest.approx(-0.1)


def test_a_backchannel_before_the_end_does_not_move_the_onset():
    # One utterance under the 1 s rule; the response still starts at 7.3.
    agent = [[5.9, 6.3], [7.3, 11.0]]
    assert reward(agent) == pytest.approx(-0.3)
    assert reward(agent, early="literal") == pytest.approx(1.1)


@pytest.mark.parametrize(("end", "expected"), [(7.2, -3.0), (7.21, -4.0)])
def test_speech_that_stops_with_the_user_is_not_the_response(end, expected):
    assert reward([[3.0, end], [10.0, 12.0]]) == pytest.approx(expected)


def test_cross_tolerance_moves_that_border():
    agent = [[3.0, 7.4], [10.0, 12.0]]
    assert reward(agent, cross_tolerance_s=0.5) == pytest.approx(-3.0)


@pytest.mark.parametrize(("cap", "expected"), [(True, -5.0), (False, -11.0)])
def test_cap(cap, expected):
    assert reward([[-4.0, 13.0]], duration_s=12.0, cap=cap) == pytest.approx(expected)


def test_early_late_and_absent_share_one_worst_value():
    for agent in ([], [[-9.0, 14.0]], [[13.5, 14.0]], [[12.9, 14.0]]):
        assert -7.0 - 1e-9 <= reward(agent) <= -5.9
    assert reward([]) == reward([[-9.0, 14.0]]) == -7.0


def test_earlier_answers_are_never_worth_less():
    delays = [0.0, 0.08, 0.4, 1.0, 3.0, 5.9]
    rewards = [reward([[7.0 + delay, 14.0]]) for delay in delays]
    assert rewards == sorted(rewards, reverse=True)
    assert rewards[0] == 0.0


def test_burst_shorter_than_an_utterance_alone_is_skipped():
    assert reward([[7.2, 7.7], [8.9, 12.0]]) == pytest.approx(-1.9)  # gap 1.2 s
    assert reward([[7.2, 7.7]]) == -7.0


def test_response_start_and_delay():
    assert response_start_s([(3.0, 4.5), (7.3, 9.0)], 7.0, 14.0) == 7.3
    assert response_start_s([(3.0, 4.5)], 7.0, 14.0) is None
    assert response_delay_s(7.3, 7.0, 14.0) == pytest.approx(0.3)
    assert response_delay_s(None, 7.0, 14.0) == 7.0


def test_a_turn_that_ends_with_the_segment_leaves_nothing_to_lose():
    assert reward([], turn_end_s=14.0) == 0.0


@pytest.mark.parametrize(
    ("agent", "facts"),
    [
        ([[7.3, 9.0]], {"rule": "after", "onset_s": 7.3, "delay_s": 0.3}),
        ([[6.5, 9.0]], {"rule": "early", "onset_s": 6.5, "delay_s": 0.5}),
        ([], {"rule": "none", "onset_s": None, "delay_s": 7.0}),
        ([[-4.0, 9.0]], {"rule": "early, capped", "onset_s": -4.0, "delay_s": 7.0}),
    ],
)
def test_what_the_rule_saw(agent, facts):
    dialogue = Dialogue.from_dict({"duration_s": 14.0, "agent": agent, "user_turn_end_s": 7.0})
    outcome = turn_taking(dialogue)
    assert outcome.facts["rule"] == facts["rule"]
    assert outcome.facts["onset_s"] == facts["onset_s"]
    assert outcome.facts["delay_s"] == pytest.approx(facts["delay_s"])
