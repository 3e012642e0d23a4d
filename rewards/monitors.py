"""Monitors of reward hacking: the statistics of an epoch against those of the first one.

A policy that is rewarded by an imperfect rule learns the imperfection. Probes of single rewards
have left a quarter to a half of the rollouts empty, and token-level GRPO doubled repetition
(arXiv 2609.12623, 2604.10065). None of that shows in the reward.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from rewards.checks import require_at_least_0, require_one_of
from rewards.rollout_statistics import STATISTICS, RolloutView


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """When a statistic is worth a word, and when a run must end.

    Attributes:
        direction: which change counts.
        min_change: smaller changes of the mean are never worth a word, in the statistic's unit.
        sigmas: the change must also be this many standard errors of the difference of both means.
        stop_above: a mean that has grown, and above this, stops the run.
        stop_ratio: a mean that has grown to this multiple of the first one stops the run.
    """

    direction: Literal["up", "both"] = "both"
    min_change: float = 0.1
    sigmas: float = 3.0
    stop_above: float | None = None
    stop_ratio: float | None = None

    def __post_init__(self) -> None:
        require_one_of(self, "direction", ("up", "both"))
        require_at_least_0(self, ("min_change", "sigmas"))


THRESHOLDS: Mapping[str, Threshold] = {
    "silence": Threshold(),
    "run_length": Threshold(min_change=0.5),
    "repetition": Threshold(direction="up", min_change=0.05, stop_ratio=2.0),
    "drift": Threshold(direction="up"),
    "padding": Threshold(),
    "overlap": Threshold(direction="up"),
    "undue": Threshold(direction="up"),
    "empty": Threshold(direction="up", stop_above=0.2),
}
"""The defaults: 3 sigma for a word; twice the repetition or a fifth of empty replies to stop."""


@dataclass(frozen=True)
class Mean:
    """Mean of a statistic over an epoch, its standard error, and from how many groups."""

    value: float
    error: float
    count: int


@dataclass(frozen=True)
class Finding:
    """One statistic that has left its bounds.

    Attributes:
        statistic: its name.
        level: "alert" is to be read, "stop" ends the run.
        value: its mean now.
        first: its mean in the first epoch.
    """

    statistic: str
    level: Literal["alert", "stop"]
    value: float
    first: float

    def __str__(self) -> str:
        return (
            f"{self.level}: {self.statistic} is {self.value:.3g}, "
            f"it was {self.first:.3g} in the first epoch"
        )


class Monitors:
    """Compares every epoch with the first one it saw.

    Args:
        thresholds: by statistic; those of `THRESHOLDS` by default.

    Raises:
        ValueError: a statistic that does not exist.
    """

    def __init__(self, thresholds: Mapping[str, Threshold] = THRESHOLDS) -> None:
        if unknown := sorted(set(thresholds) - set(STATISTICS)):
            raise ValueError(
                f"no statistic {unknown[0]!r}, expected one of {', '.join(STATISTICS)}"
            )
        self.thresholds = dict(thresholds)
        self.first: dict[str, Mean] = {}

    def check(self, table: Float[np.ndarray, "N K"]) -> tuple[dict[str, Mean], list[Finding]]:
        """Average the statistics of an epoch and compare them.

        A statistic is compared with the first epoch that had it.

        Args:
            table: of `statistics_table`, of all processes.

        Returns:
            The means, for the log; and what has left its bounds, stops first.
        """
        means = epoch_means(table)
        findings = []
        for name, threshold in self.thresholds.items():
            if name not in means:
                continue
            first = self.first.setdefault(name, means[name])
            finding = _compare(name, means[name], first, threshold)
            if finding is not None:
                findings.append(finding)
        return means, sorted(findings, key=lambda finding: finding.level, reverse=True)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as plain values."""
        return {name: asdict(mean) for name, mean in self.first.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.first = {name: Mean(**values) for name, values in state.items()}


def statistics_table(groups: Sequence[Sequence[RolloutView]]) -> Float[np.ndarray, "N K"]:
    """Mean of every statistic of `STATISTICS` over each group, NaN where no rollout has it.

    Rollouts of a group answer the same audio: they are one observation, not many.
    """
    table = np.full((len(groups), len(STATISTICS)), np.nan)
    for row, views in zip(table, groups, strict=True):
        for column, statistic in enumerate(STATISTICS.values()):
            values = [value for view in views if (value := statistic(view)) is not None]
            if values:
                row[column] = np.mean(values)
    return table


def epoch_means(table: Float[np.ndarray, "N K"]) -> dict[str, Mean]:
    """Mean over groups of every statistic that at least one group has."""
    means = {}
    for name, column in zip(STATISTICS, table.T, strict=True):
        values = column[np.isfinite(column)]
        if values.size:
            error = float(values.std() / math.sqrt(values.size))
            means[name] = Mean(float(values.mean()), error, values.size)
    return means


def _compare(name: str, now: Mean, first: Mean, threshold: Threshold) -> Finding | None:
    change = now.value - first.value
    size = change if threshold.direction == "up" else abs(change)
    noise = threshold.sigmas * math.hypot(now.error, first.error)
    if size < threshold.min_change or size <= noise:
        return None
    above = threshold.stop_above is not None and now.value > threshold.stop_above
    grown = threshold.stop_ratio is not None and now.value >= threshold.stop_ratio * first.value
    return Finding(name, "stop" if above or grown else "alert", now.value, first.value)
