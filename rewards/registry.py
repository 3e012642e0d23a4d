"""The registry: a reward is a pure function of a dialogue, found by the axes it belongs to.

A new axis is one decorated function::

    @register("greeting", axes=("greeting",), config=GreetingConfig)
    def greeting(dialogue: Dialogue, config: GreetingConfig = _DEFAULTS) -> float | None: ...

None means *missing*: the segment does not say what the rule would need. A rule never makes up a
number for it.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, TypeVar

from rewards.dialogue import Dialogue

RewardFunction = Callable[..., float | None]
_F = TypeVar("_F", bound=RewardFunction)


@dataclass(frozen=True, kw_only=True)
class Reward:
    """One registered rule.

    Attributes:
        name: unique; the name of the component in logs and in `score`.
        axes: segments it is computed on.
        function: `(dialogue, config) -> float | None`.
        config: frozen dataclass whose defaults are the rule's defaults.
    """

    name: str
    axes: tuple[str, ...]
    function: RewardFunction
    config: type


REWARDS: dict[str, Reward] = {}
"""Every registered rule by name, in the order of registration."""


def register(name: str, *, axes: tuple[str, ...], config: type) -> Callable[[_F], _F]:
    """Register a pure function `(dialogue, config) -> float | None` and return it unchanged.

    Raises:
        ValueError: the name is taken, or there is no axis.
        TypeError: `config` is not a dataclass, or the function does not take (dialogue, config).
    """
    if name in REWARDS:
        raise ValueError(f"reward {name!r} is registered already, expected a new name")
    if not axes:
        raise ValueError(f"reward {name!r} has no axis, expected at least one")
    if not is_dataclass(config):
        raise TypeError(f"config of reward {name!r} is {config!r}, expected a dataclass")

    def add(function: _F) -> _F:
        parameters = list(inspect.signature(function).parameters)
        if parameters != ["dialogue", "config"]:
            raise TypeError(f"reward {name!r} takes {parameters}, expected (dialogue, config)")
        REWARDS[name] = Reward(name=name, axes=axes, function=function, config=config)
        return function

    return add


def reward_axes() -> tuple[str, ...]:
    """Every axis a rule is registered for, sorted."""
    return tuple(sorted({axis for reward in REWARDS.values() for axis in reward.axes}))


def rewards_for(axis: str) -> tuple[Reward, ...]:
    """The rules of one axis, in the order of registration.

    Raises:
        ValueError: no rule is registered for the axis.
    """
    found = tuple(reward for reward in REWARDS.values() if axis in reward.axes)
    if not found:
        raise ValueError(f"no reward for axis {axis!r}, expected {', '.join(reward_axes())}")
    return found


def score(
    dialogue: Dialogue, axis: str, configs: Mapping[str, Any] | None = None
) -> dict[str, float | None]:
    """Every component of one axis for one dialogue.

    Args:
        dialogue: one rollout on one segment.
        axis: the segment's axis.
        configs: reward name -> config; a rule not named runs on its defaults.

    Returns:
        Reward name -> value, None = missing.

    Raises:
        ValueError: no rule is registered for the axis.
    """
    configs = configs or {}
    return {
        reward.name: reward.function(dialogue, configs.get(reward.name, reward.config()))
        for reward in rewards_for(axis)
    }
