import dataclasses

import pytest

from rewards import (
    REWARDS,
    Dialogue,
    Outcome,
    PauseConfig,
    TurnTakingConfig,
    load_module,
    outcomes,
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


FOUR = ("backchanneling", "user_interruption", "pause_handling", "turn_taking")


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "REWARDS", dict(REWARDS))
    return registry.REWARDS


def test_every_axis_has_its_rules():
    assert set(reward_axes()) >= {"backchannel", "interruption", "pause", "turn"}
    assert [reward.name for reward in rewards_for("pause")] == ["pause_handling"]
    assert [reward.name for reward in rewards_for("turn")] == ["turn_taking"]
    assert REWARDS["pause_handling"].function is pause_handling
    assert REWARDS["turn_taking"].config is TurnTakingConfig


def test_registered_rules_have_distinct_names_and_working_defaults():
    silent = Dialogue(
        duration_s=9.0, user_turn_end_s=7.0, interruption=(4.0, 6.0), backchannels=((1.0, 1.5),)
    )
    values = {
        name: reward.function(silent, reward.config()).value for name, reward in REWARDS.items()
    }
    values = {name: values[name] for name in FOUR}
    assert values == {
        "backchanneling": 0.0, "user_interruption": -3.0, "pause_handling": 0.0, "turn_taking": -2.0
    }  # fmt: skip


def test_a_new_axis_is_one_decorated_function(own_registry):
    @register("greeting", axes=("greeting", "turn"), config=GreetingConfig)
    def greeting(dialogue, config):
        return Outcome(float(bool(dialogue.agent) and dialogue.agent[0][0] <= config.within_s))

    dialogue = Dialogue(duration_s=6.0, agent=((0.5, 2.0),))
    assert score(dialogue, "greeting") == {"greeting": 1.0}
    assert score(dialogue, "greeting", {"greeting": GreetingConfig(within_s=0.1)})["greeting"] == 0
    assert score(dialogue, "turn") == {"turn_taking": None, "greeting": 1.0}
    assert "greeting" in reward_axes()
    assert "greeting" not in REWARDS


def test_score_hands_each_rule_its_config():
    dialogue = Dialogue(duration_s=14.0, agent=((6.5, 10.0),), user_turn_end_s=7.0)
    assert score(dialogue, "turn") == {"turn_taking": -0.5}
    clamp = {"turn_taking": TurnTakingConfig(early="clamp"), "pause_handling": PauseConfig()}
    assert score(dialogue, "turn", clamp) == {"turn_taking": 0.0}
    assert turn_taking(dialogue, clamp["turn_taking"]).value == 0.0


def test_an_unknown_axis_is_an_error():
    with pytest.raises(ValueError, match="no reward for axis 'bc', expected backchannel, "):
        rewards_for("bc")


def test_wrong_registrations_are_errors(own_registry):
    with pytest.raises(ValueError, match="'turn_taking' is registered already"):
        register("turn_taking", axes=("turn",), config=TurnTakingConfig)
    with pytest.raises(ValueError, match=r"axes \(\), expected a tuple"):
        register("other", axes=(), config=TurnTakingConfig)
    with pytest.raises(ValueError, match="min_std of reward 'other' is -1"):
        register("other", axes=("turn",), config=TurnTakingConfig, min_std=-1)
    with pytest.raises(TypeError, match="expected a dataclass"):
        register("other", axes=("turn",), config=dict)
    with pytest.raises(TypeError, match=r"takes \['dialogues'\], expected \(dialogue, config\)"):
        register("other", axes=("turn",), config=TurnTakingConfig)(lambda dialogues: None)
    assert own_registry == REWARDS


OWN_AXIS = """
from dataclasses import dataclass
from rewards import Outcome, register

@dataclass(frozen=True)
class Config:
    worth: float = 3.0

@register("{name}", axes=("{name}",), config=Config)
def own(dialogue, config=Config()):
    return Outcome(config.worth, {{"rule": "always"}})
"""


def test_load_module_by_path_and_by_name(own_registry, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("by_path_axis", "by_name_axis"):
        (tmp_path / f"{name}.py").write_text(OWN_AXIS.format(name=name))
    assert load_module(str(tmp_path / "by_path_axis.py")) == ("by_path_axis",)
    assert load_module("by_name_axis") == ("by_name_axis",)
    assert load_module("by_name_axis") == ()
    found = outcomes(Dialogue(duration_s=1.0), "by_path_axis")["by_path_axis"]
    assert found == Outcome(3.0, {"rule": "always"})
    assert "by_name_axis" in reward_axes()


def test_modules_that_are_none(own_registry, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "says_nothing_axis.py").write_text("x = 1\n")
    (tmp_path / "lacks_axis.py").write_text("import no_such_module_at_all\n")
    with pytest.raises(ValueError, match=r"says_nothing_axis.py registers no reward"):
        load_module(str(tmp_path / "says_nothing_axis.py"))
    with pytest.raises(ValueError, match="no such file"):
        load_module(str(tmp_path / "absent.py"))
    with pytest.raises(ValueError, match="'absent_axis' is not found"):
        load_module("absent_axis")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        load_module("lacks_axis")


def test_a_rule_that_returns_a_bare_number_is_a_bug(own_registry):
    register("bare", axes=("bare",), config=GreetingConfig)(lambda dialogue, config: 1.0)
    with pytest.raises(TypeError, match=r"'bare' returned 1.0, expected an Outcome"):
        score(Dialogue(duration_s=1.0), "bare")
