import dataclasses

import pytest

from rewards import (
    REWARDS,
    Dialogue,
    PauseConfig,
    TurnTakingConfig,
    pause_handling,
    register,
    registry,
    reward_axes,
    rewards_for,
    score,
    turn_taking,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GreetingConfig:
    within_s: float = 1.0


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "REWARDS", dict(REWARDS))
    return registry.REWARDS


def test_every_axis_has_its_rules():
    assert reward_axes() == ("backchannel", "interruption", "pause", "turn")
    assert [reward.name for reward in rewards_for("pause")] == ["pause_handling"]
    assert [reward.name for reward in rewards_for("turn")] == ["turn_taking"]
    assert REWARDS["pause_handling"].function is pause_handling
    assert REWARDS["turn_taking"].config is TurnTakingConfig


def test_registered_rules_have_distinct_names_and_working_defaults():
    silent = Dialogue(
        duration_s=9.0, user_turn_end_s=7.0, interruption=(4.0, 6.0), backchannels=((1.0, 1.5),)
    )
    values = {name: reward.function(silent, reward.config()) for name, reward in REWARDS.items()}
    assert values == {
        "backchanneling": 0.0, "user_interruption": -3.0, "pause_handling": 0.0, "turn_taking": -2.0
    }  # fmt: skip


def test_a_new_axis_is_one_decorated_function(own_registry):
    @register("greeting", axes=("greeting", "turn"), config=GreetingConfig)
    def greeting(dialogue, config):
        return float(bool(dialogue.agent) and dialogue.agent[0][0] <= config.within_s)

    dialogue = Dialogue(duration_s=6.0, agent=((0.5, 2.0),))
    assert score(dialogue, "greeting") == {"greeting": 1.0}
    assert score(dialogue, "greeting", {"greeting": GreetingConfig(within_s=0.1)})["greeting"] == 0
    assert score(dialogue, "turn") == {"turn_taking": None, "greeting": 1.0}
    assert reward_axes() == ("backchannel", "greeting", "interruption", "pause", "turn")
    assert "greeting" not in REWARDS


def test_score_hands_each_rule_its_config():
    dialogue = Dialogue(duration_s=14.0, agent=((6.5, 10.0),), user_turn_end_s=7.0)
    assert score(dialogue, "turn") == {"turn_taking": -0.5}
    clamp = {"turn_taking": TurnTakingConfig(early="clamp"), "pause_handling": PauseConfig()}
    assert score(dialogue, "turn", clamp) == {"turn_taking": 0.0}
    assert turn_taking(dialogue, clamp["turn_taking"]) == 0.0


def test_an_unknown_axis_is_an_error():
    with pytest.raises(ValueError, match="no reward for axis 'bc', expected backchannel, "):
        rewards_for("bc")


def test_wrong_registrations_are_errors(own_registry):
    with pytest.raises(ValueError, match="'turn_taking' is registered already"):
        register("turn_taking", axes=("turn",), config=TurnTakingConfig)
    with pytest.raises(ValueError, match="no axis"):
        register("other", axes=(), config=TurnTakingConfig)
    with pytest.raises(TypeError, match="expected a dataclass"):
        register("other", axes=("turn",), config=dict)
    with pytest.raises(TypeError, match=r"takes \['dialogues'\], expected \(dialogue, config\)"):
        register("other", axes=("turn",), config=TurnTakingConfig)(lambda dialogues: None)
    assert own_registry == REWARDS
