"""One line for a bad option: which, what it is, what it must be."""

import math
from collections.abc import Iterable


def require_at_least_0(owner: object, names: Iterable[str]) -> None:
    """Check that fields of a config are finite numbers of at least 0.

    Raises:
        ValueError: one is not.
    """
    for name in names:
        value = getattr(owner, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and value >= 0):
            raise ValueError(
                f"{type(owner).__name__}.{name} is {value!r}, expected a number of at least 0"
            )


def require_one_of(owner: object, name: str, choices: Iterable[object]) -> None:
    """Check that a field of a config is one of its choices.

    Raises:
        ValueError: it is not.
    """
    value, choices = getattr(owner, name), tuple(choices)
    if value not in choices:
        expected = ", ".join(map(repr, choices))
        raise ValueError(f"{type(owner).__name__}.{name} is {value!r}, expected one of {expected}")
