"""Group-relative advantages: each reward component is standardised alone, then they are added.

Adding first would let the component with the widest scale decide alone (GDPO; arXiv 2606.11167 uses
it for delay + judge). A missing reward is no evidence: it contributes 0 to its rollout, and a
component with too few values left says nothing about the group.

The other estimators add the components first and differ in what they do with the sum:

    gdpo     sum_c w_c (r_c - mean) / (std + eps)         each component alone: the default
    grpo     (R - mean) / (std + eps),  R = sum_c w_c r_c   arXiv 2402.03300
    drgrpo   R - mean                                      arXiv 2503.20783
    rloo     R - mean of the other rollouts                arXiv 2402.14740
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

EPS = 1e-4
"""Added to the standard deviation of a component."""

MIN_VALID_SHARE = 0.75
"""A component needs at least max(2, this share of the group) values."""

Estimator = Literal["gdpo", "grpo", "drgrpo", "rloo"]
ESTIMATORS: tuple[Estimator, ...] = ("gdpo", "grpo", "drgrpo", "rloo")

_CONSTANT = 1e-9
"""A spread below this is rounding noise of equal rewards."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """One component over one group.

    Attributes:
        valid: number of rewards that are not missing.
        mean: of the valid ones, NaN if there is none.
        std: their spread (population), NaN if there is none.
        state: "used", or why it says nothing: "too few" valid rewards, or "constant": a spread of
            at most `min_std`.
    """

    valid: int
    mean: float
    std: float
    state: Literal["used", "too few", "constant"]


def group_statistics(
    rewards: Float[np.ndarray, " G"], min_std: float = 0.0, *, ddof: int = 0
) -> Statistics:
    """Mean, spread and fate of one component.

    Args:
        rewards: one reward a rollout; NaN = missing.
        min_std: a component whose standard deviation is at most this has no signal (for a delay
            in seconds: less than one VAD hop).
        ddof: 0 for the spread of the population, 1 for that of a sample.

    Raises:
        ValueError: a reward is infinite.
    """
    if np.isinf(rewards).any():
        raise ValueError(f"rewards must be finite or NaN (missing), got {rewards.tolist()}")
    values = rewards[~np.isnan(rewards)].astype(np.float64)
    mean = float(values.mean()) if values.size else math.nan
    std = float(values.std(ddof=ddof)) if values.size > ddof else math.nan
    if values.size < max(2, math.ceil(MIN_VALID_SHARE * rewards.size)):
        state = "too few"
    else:
        state = "used" if std > max(min_std, _CONSTANT) else "constant"
    return Statistics(valid=values.size, mean=mean, std=std, state=state)


def standardise(
    rewards: Float[np.ndarray, " G"], min_std: float = 0.0, *, eps: float = EPS, ddof: int = 0
) -> Float[np.ndarray, " G"]:
    """Standard scores of one component over the group.

    Args:
        rewards: one reward a rollout; NaN = missing.
        min_std: see `group_statistics`.
        eps: added to the standard deviation.
        ddof: see `group_statistics`.

    Returns:
        (r - mean) / (std + eps), 0 where missing; all 0 when too few are valid or they are too
        close.

    Raises:
        ValueError: a reward is infinite.
    """
    statistics = group_statistics(rewards, min_std, ddof=ddof)
    scores = np.zeros(rewards.shape, np.float64)
    if statistics.state == "used":
        valid = ~np.isnan(rewards)
        values = rewards[valid].astype(np.float64)
        scores[valid] = (values - statistics.mean) / (statistics.std + eps)
    return scores


def group_advantages(
    components: Float[np.ndarray, "C G"],
    min_std: Sequence[float] = (),
    *,
    weights: Sequence[float] = (),
    estimator: Estimator = "gdpo",
    eps: float = EPS,
    ddof: int = 0,
) -> Float[np.ndarray, " G"]:
    """Advantages of the rollouts of one group.

    Args:
        components: rewards, a row per component; NaN = missing.
        min_std: a floor per component, or empty for no floors; a component below its floor is
            left out.
        weights: one per component, or empty for equal ones.
        estimator: see the head of this file. Where components are added first, a rollout that
            misses one of them has no sum: its advantage is 0.
        eps: added to standard deviations.
        ddof: 0 for the spread of the population, 1 for that of a sample.

    Raises:
        ValueError: not one floor or weight a component, a reward is infinite, a weight is not
            finite, or an unknown estimator.
    """
    floors, factors = tuple(min_std), tuple(weights)
    for name, values in (("min_std", floors), ("weights", factors)):
        if values and len(values) != len(components):
            raise ValueError(
                f"{name} has {len(values)} values for {len(components)} components; give one each"
            )
        if not all(map(math.isfinite, values)):
            raise ValueError(f"{name} is {values}, expected finite numbers")
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator is {estimator!r}, expected one of {', '.join(ESTIMATORS)}")
    floors = floors or (0.0,) * len(components)
    factors = factors or (1.0,) * len(components)
    if estimator == "gdpo":
        scores = [
            factor * standardise(row, floor, eps=eps, ddof=ddof)
            for row, floor, factor in zip(components, floors, factors, strict=True)
        ]
        return np.sum(scores, axis=0)

    used = [
        factor * row.astype(np.float64)
        for row, floor, factor in zip(components, floors, factors, strict=True)
        if group_statistics(row, floor, ddof=ddof).state == "used"
    ]
    if not used:
        return np.zeros(components.shape[1], np.float64)
    total = np.sum(used, axis=0)  # NaN where one of them is missing
    if estimator == "grpo":
        return standardise(total, eps=eps, ddof=ddof)
    advantages = total - np.nanmean(total) if np.isfinite(total).any() else total
    if estimator == "rloo":
        valid = np.isfinite(total).sum()
        # r - mean of the others = (r - mean of all) * n / (n - 1)
        advantages = advantages * (valid / (valid - 1) if valid > 1 else 0.0)
    return np.nan_to_num(advantages, nan=0.0)


def batch_standardise(advantages: Float[np.ndarray, "B G"]) -> Float[np.ndarray, "B G"]:
    """Standardise the advantages of all groups of an epoch once more, as GDPO's code does.

    The sum of several standardised components has a wider spread than one; after this every batch
    has spread 1. arXiv 2606.11167 does not mention it. Advantages that are all equal become 0.
    """
    std = float(advantages.std())
    if std <= _CONSTANT:
        return np.zeros_like(advantages)
    return (advantages - advantages.mean()) / (std + EPS)
