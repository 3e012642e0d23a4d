"""What a comparison says: passed or not, and the figures either way."""

from dataclasses import dataclass

import jax
import numpy as np

NEAR_TIE = 1e-3  # below this margin two correct f32 programs may choose differently


@dataclass(frozen=True)
class Check:
    """One comparison with its figures in words."""

    passed: bool
    text: str


def close(what: str, got: np.ndarray | jax.Array, expected: np.ndarray, tolerance: float) -> Check:
    """Largest absolute difference against a tolerance."""
    error = float(np.max(np.abs(np.asarray(got, np.float64) - expected), initial=0.0))
    return Check(error <= tolerance, f"{what} {error:.1e} (limit {tolerance:.0e})")


def equal(
    what: str, got: np.ndarray | jax.Array, expected: np.ndarray, counted: np.ndarray
) -> Check:
    """Exact equality where `counted` is True."""
    same = (np.asarray(got) == expected) | ~np.broadcast_to(counted, expected.shape)
    total = int(np.broadcast_to(counted, expected.shape).sum())
    wrong = int(np.sum(~same))
    return Check(wrong == 0 and total > 0, f"{what} {total - wrong}/{total} equal")


def equal_rows(
    what: str,
    got: np.ndarray | jax.Array,
    expected: np.ndarray,
    counted: np.ndarray,
    margin: np.ndarray | None,
) -> Check:
    """Equality of a free run, call by call.

    A run that takes the other side of a recorded near tie goes its own way from there on: it is
    compared up to that call, and the text says so. Any other difference fails.

    Args:
      what: name of the run.
      got: tokens [S, ...], a row a call.
      expected: those of the recording.
      counted: [S] or [S, ...], what to compare.
      margin: [S], smallest margin of any choice made at a call; None if none was recorded.
    """
    counted = np.broadcast_to(
        counted.reshape(counted.shape + (1,) * (expected.ndim - counted.ndim)), expected.shape
    )
    wrong = (np.asarray(got) != expected) & counted
    calls = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
    total = len(expected)
    if len(calls) == 0:
        return Check(bool(counted.any()), f"{what} {total}/{total} calls equal")
    first = int(calls[0])
    ties = [] if margin is None else np.flatnonzero(margin[: first + 1] < NEAR_TIE)
    if margin is not None and len(ties):
        tie = int(ties[-1])
        return Check(
            True,
            f"{what} {first}/{total} calls equal, then a near tie of call {tie} "
            f"(margin {margin[tie]:.0e}) fell the other way",
        )
    return Check(False, f"{what} {first}/{total} calls equal, call {first} differs")
