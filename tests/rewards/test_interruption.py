import pytest

from rewards import Dialogue, InterruptionConfig, user_interruption


def reward(agent, **config):
    dialogue = Dialogue.from_dict({"duration_s": 18.0, "agent": agent, "interruption": [9.0, 12.0]})
    return user_interruption(dialogue, InterruptionConfig(**config)).value


def test_missing_without_an_interruption():
    assert user_interruption(Dialogue(duration_s=5.0, user_turn_end_s=2.0)).value is None


def test_talking_through_costs_the_interruption_not_the_turn_before():
    talking = [[4.0, 17.0]]
    assert reward(talking) == pytest.approx(-3.0)
    assert reward(talking, early_floor="none") == pytest.approx(-6.0)  # 8 s, capped at 18 - 12
    assert reward(talking, early_floor="none", cap=False) == pytest.approx(-8.0)
    assert reward(talking, early="clamp") == 0.0


def test_a_silent_model_can_be_left_out():
    answer = [[12.4, 16.0]]
    assert reward(answer) == pytest.approx(-0.4)
    assert reward(answer, require_prior_speech=True) is None
    assert reward([[4.0, 9.2], *answer], require_prior_speech=True) == pytest.approx(-0.4)


def test_speech_during_the_interruption_can_cost():
    agent = [[4.0, 10.5], [12.4, 16.0]]  # 1.5 s into the interruption
    assert reward(agent) == pytest.approx(-0.4)
    assert reward(agent, yield_weight=0.5) == pytest.approx(-0.4 - 0.5 * 1.0)
    assert reward([[4.0, 9.4], [12.4, 16.0]], yield_weight=0.5) == pytest.approx(-0.4)


def test_what_the_rule_saw():
    label = {"duration_s": 18.0, "interruption": [9.0, 12.0]}
    facts = user_interruption(
        Dialogue.from_dict({**label, "agent": [[4.0, 10.5], [12.4, 16.0]]})
    ).facts
    assert (facts["rule"], facts["onset_s"]) == ("after", 12.4)
    assert facts["delay_s"] == pytest.approx(0.4)
    assert facts["talked_through_s"] == pytest.approx(1.5)
    silent = user_interruption(
        Dialogue.from_dict(label), InterruptionConfig(require_prior_speech=True)
    )
    assert (silent.value, silent.facts["rule"]) == (None, "no speech before the interruption")
