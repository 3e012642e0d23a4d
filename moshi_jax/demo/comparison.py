"""Base against tuned, a row a reward: means with 95 % intervals, and the paired p."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from grpo.bootstrap import Comparison, Estimate, compare
from grpo.heldout import SegmentScore, by_axis
from grpo.segments import AXES
from rewards.judge import JUDGE_REWARD


@dataclass(frozen=True, kw_only=True)
class AxisResult:
    """One reward of one axis.

    Attributes:
        axis: name, or "all" for the judge over every axis that has one.
        reward: name; higher is better for all of them.
        comparison: of base and tuned.
    """

    axis: str
    reward: str
    comparison: Comparison


def compare_axes(
    base: Sequence[SegmentScore], tuned: Sequence[SegmentScore]
) -> tuple[AxisResult, ...]:
    """Every reward of every axis, the timing rewards before the judge.

    Raises:
        ValueError: the two are of different segments.
    """
    if [score.segment_id for score in base] != [score.segment_id for score in tuned]:
        raise ValueError("base and tuned were scored on different segments, expected the same ones")
    pairs = [(s.axis, name) for s in base for name in s.rewards]
    pairs = sorted(
        set(pairs), key=lambda pair: (pair[1] == JUDGE_REWARD, AXES.index(pair[0]), pair)
    )
    results = []
    for axis, reward in pairs:
        before, conversations = by_axis(base, axis, reward)
        after, _ = by_axis(tuned, axis, reward)
        comparison = compare(before, after, conversations)
        results.append(AxisResult(axis=axis, reward=reward, comparison=comparison))
    judged = [axis for axis, reward in pairs if reward == JUDGE_REWARD]
    if len(judged) > 1:
        before, conversations = _joined(base, judged)
        after, _ = _joined(tuned, judged)
        comparison = compare(before, after, conversations)
        results.append(AxisResult(axis="all", reward=JUDGE_REWARD, comparison=comparison))
    return tuple(results)


def _joined(scores: Sequence[SegmentScore], axes: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    parts = [by_axis(scores, axis, JUDGE_REWARD) for axis in axes]
    return np.concatenate([values for values, _ in parts]), [c for _, own in parts for c in own]


def mean_kl(scores: Sequence[SegmentScore], axis: str | None = None) -> float:
    """Nats a frame, mean over the segments (of an axis)."""
    return float(np.mean([score.kl for score in scores if axis in (None, score.axis)]))


def table(results: Sequence[AxisResult], *, title: str) -> Table:
    """As it is printed."""
    found = Table("held-out", "reward", "n", "base", "tuned", "change", "p", title=title)
    for column in found.columns[2:]:
        column.justify = "right"
    for result in results:
        c = result.comparison
        numbers = (_interval(c.before), _interval(c.after), _interval(c.change, sign=True))
        found.add_row(result.axis, result.reward, str(c.segments), *numbers, _p(c.p))
    return found


def _interval(estimate: Estimate, *, sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    return f"{estimate.mean:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
