import pytest

from rewards import Dialogue, outcomes, score
from rewards.axes.user_backchannel import UserBackchannelConfig

WORDS = ((4.0, 4.4), (8.0, 8.5))


def reward(agent, words=WORDS, duration_s=12.0, **config):
    dialogue = Dialogue.of_segment(
        duration_s=duration_s, agent=agent, labels={"user_backchannels": words}
    )
    configs = {"user_backchannel": UserBackchannelConfig(**config)}
    return score(dialogue, "user_backchannel", configs)["user_backchannel"]


def test_going_on_is_worth_0_and_stopping_costs():
    assert reward(((0.0, 11.0),)) == 0.0
    assert reward(((0.0, 4.2), (6.0, 11.0))) == pytest.approx(-0.5)
    assert reward(((0.0, 4.2), (7.0, 8.2))) == -1.0


def test_a_breath_is_not_a_stop():
    assert reward(((0.0, 4.5), (4.75, 11.0))) == 0.0  # a gap inside a run
    assert reward(((0.0, 4.5), (4.95, 11.0))) == 0.0  # 0.95 of 1.4 s is more than 60 %
    assert reward(((0.0, 4.5), (4.95, 11.0)), min_share=0.8) == pytest.approx(-0.5)


def test_only_backchannels_while_the_model_speaks_count():
    assert reward(((7.0, 11.0),)) == 0.0  # the first word falls into silence
    assert reward(()) is None
    assert reward(((0.0, 3.0),)) is None


def test_a_backchannel_that_nobody_can_listen_after_does_not_count():
    assert reward(((0.0, 8.1),), duration_s=9.0) == 0.0
    assert reward(((0.0, 8.1),)) == pytest.approx(-0.5)


def test_without_the_label_the_short_runs_of_the_user_count():
    dialogue = Dialogue(duration_s=12.0, agent=((0.0, 4.2),), user=((4.0, 4.4), (6.0, 9.0)))
    (outcome,) = outcomes(dialogue, "user_backchannel").values()
    assert outcome.value == -1.0
    assert outcome.facts == {"rule": "stopped", "tried": 1, "stopped": 1}
    turn = Dialogue(duration_s=12.0, agent=((0.0, 4.2),), user=((4.0, 6.0),))
    assert score(turn, "user_backchannel") == {"user_backchannel": None}


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="after_s is -1"):
        UserBackchannelConfig(after_s=-1)
    with pytest.raises(ValueError, match=r"label user_backchannels is 12.5 s"):
        reward((), words=((12.5, 13.0),))
