"""Is one policy better than another on the same segments? Means, intervals, and a paired test.

Rollouts of one segment answer the same audio, and segments of one conversation share a speaker's
loudness and words: the unit that is drawn again is the cluster, here the conversation. No
distribution is assumed (percentile bootstrap; Efron and Tibshirani 1993, chapters 8 and 13).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

DRAWS = 10_000
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over segments and its percentile interval at `LEVEL`."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two policies on equal segments and draws.

    Attributes:
        before: of the first.
        after: of the second.
        change: after minus before, segment by segment.
        p: two-sided, of no change: twice the smaller share of bootstrap changes on one side of 0,
            never below 2 / (draws + 1).
        segments: how many are compared.
        clusters: from how many conversations.
    """

    before: Estimate
    after: Estimate
    change: Estimate
    p: float
    segments: int
    clusters: int


def compare(
    before: Float[np.ndarray, " N"],
    after: Float[np.ndarray, " N"],
    clusters: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Compare two policies.

    Args:
        before: the first policy's mean over the rollouts of each segment; NaN = missing.
        after: the second's. A segment that misses one of both is left out.
        clusters: what each segment was cut out of.
        draws: of the bootstrap.
        seed: of the draws.

    Raises:
        ValueError: the lengths differ, or fewer than two clusters are left.
    """
    if not len(before) == len(after) == len(clusters):
        raise ValueError(
            f"got {len(before)} and {len(after)} segments of {len(clusters)} clusters, expected "
            "one of each for every segment"
        )
    kept = ~(np.isnan(before) | np.isnan(after))
    names, member = np.unique(np.asarray(clusters)[kept], return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"got segments of {len(names)} cluster(s), expected 2 or more to compare")
    pairs = np.stack([before[kept], after[kept], after[kept] - before[kept]]).astype(np.float64)
    sizes = np.bincount(member).astype(np.float64)
    sums = np.stack([np.bincount(member, weights=row) for row in pairs])
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=draws
    )
    means = (drawn @ sums.T) / (drawn @ sizes)[:, None]  # [draws, 3]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    estimates = [
        Estimate(mean=float(row.mean()), low=float(low[i]), high=float(high[i]))
        for i, row in enumerate(pairs)
    ]
    changes = means[:, 2]
    tail = min((changes <= 0).sum(), (changes >= 0).sum())
    return Comparison(
        before=estimates[0],
        after=estimates[1],
        change=estimates[2],
        p=float(min(1.0, 2 * (tail + 1) / (draws + 1))),
        segments=int(kept.sum()),
        clusters=len(names),
    )
