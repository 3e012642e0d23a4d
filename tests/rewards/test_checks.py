import math
from types import SimpleNamespace

import pytest

from rewards import BackchannelConfig, InterruptionConfig, PauseConfig, TurnTakingConfig
from rewards.checks import require_at_least_0, require_one_of


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", None, True])
def test_require_at_least_0(value):
    owner = SimpleNamespace(good_s=0, gap_s=value)
    require_at_least_0(owner, ["good_s"])
    with pytest.raises(ValueError, match=r"SimpleNamespace.gap_s is .*, expected a number of at"):
        require_at_least_0(owner, ["good_s", "gap_s"])


def test_require_one_of():
    owner = SimpleNamespace(unit="word")
    require_one_of(owner, "unit", ("run", "word"))
    with pytest.raises(ValueError, match="unit is 'word', expected one of 'run', 'ipu'"):
        require_one_of(owner, "unit", ("run", "ipu"))


@pytest.mark.parametrize(
    ("config", "name"),
    [
        *((PauseConfig, name) for name in ("max_speech_s", "run_gap_s", "utterance_gap_s")),
        *((TurnTakingConfig, name) for name in ("min_utterance_s", "run_gap_s")),
        *((TurnTakingConfig, name) for name in ("utterance_gap_s", "cross_tolerance_s")),
        *((InterruptionConfig, name) for name in ("yield_weight", "yield_grace_s", "run_gap_s")),
        *((BackchannelConfig, name) for name in ("tolerance_s", "max_backchannel_s")),
        *((BackchannelConfig, name) for name in ("run_gap_s", "takeover_penalty")),
    ],
)
def test_nonsense_options_of_a_rule_are_errors(config, name):
    for value in (-0.1, math.nan):
        with pytest.raises(ValueError, match=f"{config.__name__}.{name} is {value}"):
            config(**{name: value})


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (PauseConfig, "unit"),
        (TurnTakingConfig, "early"),
        (InterruptionConfig, "early_floor"),
        (BackchannelConfig, "match"),
    ],
)
def test_unknown_choices_of_a_rule_are_errors(config, name):
    plain = config()
    object.__setattr__(plain, name, "nonsense")  # while testing, types refuse it before the rule
    with pytest.raises(ValueError, match=f"{name} is 'nonsense', expected one of"):
        plain.__post_init__()
