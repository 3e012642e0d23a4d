"""What a rule says: a value, or *missing*, and what it saw."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

Fact = float | int | str | bool | None


@dataclass(frozen=True)
class Outcome:
    """The result of one reward on one dialogue.

    Attributes:
        value: the reward; None = missing: the segment or a service does not say what the rule
            would need. Missing is never a number that somebody made up.
        facts: what was measured on the way ("onset_s", "delay_s") and, as "rule", which case of
            the rule it was.

    Raises:
        ValueError: the value is not finite.
    """

    value: float | None
    facts: Mapping[str, Fact] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a reward is {self.value}, expected a finite number or None: missing")


def missing(rule: str) -> Outcome:
    """Return the outcome of a rule that cannot judge, and why."""
    return Outcome(None, {"rule": rule})
