"""The registry: a reward is a pure function of a dialogue, found by the axes it belongs to.

A new axis is one decorated function in one file; `docs/rewards.md` shows a whole one::

    @register("greeting", axes=("greeting",), config=GreetingConfig)
    def greeting(dialogue: Dialogue, config: GreetingConfig = _DEFAULTS) -> Outcome: ...

Files in `rewards/axes` are loaded with the package; a file of one's own by `load_module`.
"""

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from rewards.dialogue import Dialogue
from rewards.outcome import Outcome

RewardFunction = Callable[..., Outcome]
_F = TypeVar("_F", bound=RewardFunction)


@dataclass(frozen=True, kw_only=True)
class Reward:
    """One registered rule.

    Attributes:
        name: unique; the name of the component in logs and in `score`.
        axes: segments it is computed on.
        function: `(dialogue, config) -> Outcome`.
        config: frozen dataclass whose defaults are the rule's defaults.
        min_std: spread within a group up to which its values count as equal.
    """

    name: str
    axes: tuple[str, ...]
    function: RewardFunction
    config: type
    min_std: float = 0.0


REWARDS: dict[str, Reward] = {}
"""Every registered rule by name, in the order of registration."""


def register(
    name: str, *, axes: tuple[str, ...], config: type, min_std: float = 0.0
) -> Callable[[_F], _F]:
    """Register a pure function `(dialogue, config) -> Outcome` and return it unchanged.

    Args:
        name: of the component, unique.
        axes: segments it is computed on; a name not used before is a new axis.
        config: frozen dataclass of the rule's options, every one with a default.
        min_std: spread within a group, in the unit of the reward, that carries no signal (for a
            delay: less than one hop of the detector).

    Raises:
        ValueError: the name is taken, there is no axis, or `min_std` is negative.
        TypeError: `config` is not a dataclass, or the function does not take (dialogue, config).
    """
    if name in REWARDS:
        raise ValueError(f"reward {name!r} is registered already, expected a new name")
    if isinstance(axes, str) or not axes:
        raise ValueError(f"reward {name!r} has axes {axes!r}, expected a tuple of at least one")
    if not is_dataclass(config):
        raise TypeError(f"config of reward {name!r} is {config!r}, expected a dataclass")
    if not min_std >= 0:
        raise ValueError(f"min_std of reward {name!r} is {min_std}, expected at least 0")

    def add(function: _F) -> _F:
        parameters = list(inspect.signature(function).parameters)
        if parameters != ["dialogue", "config"]:
            raise TypeError(f"reward {name!r} takes {parameters}, expected (dialogue, config)")
        REWARDS[name] = Reward(
            name=name, axes=axes, function=function, config=config, min_std=min_std
        )
        return function

    return add


def load_axes() -> None:
    """Import every file of `rewards/axes`: each registers itself."""
    import rewards.axes

    for module in sorted(found.name for found in pkgutil.iter_modules(rewards.axes.__path__)):
        importlib.import_module(f"rewards.axes.{module}")


def load_module(module: str) -> tuple[str, ...]:
    """Import a module of one's own that registers rewards.

    Args:
        module: a dotted name that Python finds, or the path of a `.py` file. Loading it again
            does nothing.

    Returns:
        The names of the rewards it added.

    Raises:
        ValueError: there is no such module, or its import registered nothing.
    """
    before = set(REWARDS)
    path = Path(module).resolve()
    name = f"rewards_of_{path.stem}" if module.endswith(".py") else module
    if name in sys.modules:
        return ()
    if module.endswith(".py"):
        if not path.is_file():
            raise ValueError(f"module of rewards {module}: no such file")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[name] = loaded
        try:
            spec.loader.exec_module(loaded)
        except BaseException:
            del sys.modules[name]
            raise
    else:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the module is there, and what it imports is not
            raise ValueError(
                f"module of rewards {module!r} is not found, expected a module name on PYTHONPATH "
                "or the path of a .py file"
            ) from error
    added = tuple(reward for reward in REWARDS if reward not in before)
    if not added:
        raise ValueError(f"module {module} registers no reward, expected a use of @register")
    return added


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


def outcomes(
    dialogue: Dialogue, axis: str, configs: Mapping[str, Any] | None = None
) -> dict[str, Outcome]:
    """Every component of one axis for one dialogue, with what each rule measured.

    Args:
        dialogue: one rollout on one segment.
        axis: the segment's axis.
        configs: reward name -> config; a rule not named runs on its defaults.

    Raises:
        ValueError: no rule is registered for the axis.
        TypeError: a rule returned something else than an `Outcome`.
    """
    configs = configs or {}
    found = {}
    for reward in rewards_for(axis):
        outcome = reward.function(dialogue, configs.get(reward.name, reward.config()))
        if not isinstance(outcome, Outcome):
            raise TypeError(f"reward {reward.name!r} returned {outcome!r}, expected an Outcome")
        found[reward.name] = outcome
    return found


def score(
    dialogue: Dialogue, axis: str, configs: Mapping[str, Any] | None = None
) -> dict[str, float | None]:
    """Every component's value, None = missing; arguments and errors as `outcomes`."""
    return {name: outcome.value for name, outcome in outcomes(dialogue, axis, configs).items()}
