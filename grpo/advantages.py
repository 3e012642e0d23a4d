"""Group-relative advantages: each reward component is standardised alone, then they are added.

Adding first would let the component with the widest scale decide alone (GDPO; arXiv 2606.11167 uses
it for delay + judge). A missing reward is no evidence: it contributes 0 to its rollout, and a
component with too few values left says nothing about the group.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

EPS = 1e-4
"""Added to the standard deviation of a component."""

MIN_VALID_SHARE = 0.75
"""A component needs at least max(2, this share of the group) values."""

_CONSTANT = 1e-9
"""A spread below this is rounding noise of equal rewards."""


def standardise(rewards: Float[np.ndarray, " G"], min_std: float = 0.0) -> Float[np.ndarray, " G"]:
    """Standard scores of one component over the group.

    Args:
        rewards: one reward a rollout; NaN = missing.
        min_std: a component whose population standard deviation is at most this has no signal
            (for a delay in seconds: less than one VAD hop).

    Returns:
        (r - mean) / (std + 1e-4), 0 where missing; all 0 when too few are valid or they are too
        close.

    Raises:
        ValueError: a reward is infinite.
    """
    if np.isinf(rewards).any():
        raise ValueError(f"rewards must be finite or NaN (missing), got {rewards.tolist()}")
    valid = ~np.isnan(rewards)
    scores = np.zeros(rewards.shape, np.float64)
    if valid.sum() < max(2, math.ceil(MIN_VALID_SHARE * rewards.size)):
        return scores
    values = rewards[valid].astype(np.float64)
    std = values.std()
    if std > max(min_std, _CONSTANT):
        scores[valid] = (values - values.mean()) / (std + EPS)
    return scores


def group_advantages(
    components: Float[np.ndarray, "C G"], min_std: Sequence[float] = ()
) -> Float[np.ndarray, " G"]:
    """Sum over components of their standard scores within one group.

    Args:
        components: rewards, a row per component; NaN = missing.
        min_std: a floor per component, or empty for no floors.

    Raises:
        ValueError: not one floor a component, or a reward is infinite.
    """
    floors = tuple(min_std) or (0.0,) * len(components)
    if len(floors) != len(components):
        raise ValueError(
            f"min_std has {len(floors)} values for {len(components)} components; give one each"
        )
    scores = [standardise(row, floor) for row, floor in zip(components, floors, strict=True)]
    return np.sum(scores, axis=0)
