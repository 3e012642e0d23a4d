"""What a training run does while its judge is away.

The axes with a judge are trained on delay and verdict together; without the verdict a policy learns
to answer fast and say nothing, so going on without it is a choice that must be made by name.
"""

from dataclasses import dataclass
from typing import Literal

from rewards.judge.config import OUTAGE_POLICIES, OutagePolicy

JUDGE_REWARD = "judge"
"""The name of the component."""

JUDGE_AXES = ("turn", "interruption")
"""The axes that have it."""


@dataclass(frozen=True)
class Decision:
    """What the next epoch is.

    Attributes:
        draw: "all" axes, or those "without judge" only.
        judge: whether replies are judged.
        stop: why the run is to be saved and ended; None = it goes on.
    """

    draw: Literal["all", "without judge"] = "all"
    judge: bool = True
    stop: str | None = None


class OutageGuard:
    """Decides before every epoch.

    defer: only axes without judge teach, for up to `max_deferred_epochs` in a row, then stop.
    block: go on; the judge's calls wait for as long as it takes.
    degrade: train the judged axes on the delay alone.
    abort: stop at once.
    A used-up budget stops under every policy.
    """

    def __init__(self, policy: OutagePolicy, *, max_deferred_epochs: int = 3) -> None:
        if policy not in OUTAGE_POLICIES:
            raise ValueError(f"outage is {policy!r}, expected one of {', '.join(OUTAGE_POLICIES)}")
        self.policy, self.max_deferred_epochs = policy, max_deferred_epochs
        self.deferred_epochs = 0

    def before_epoch(self, *, available: bool, exhausted: bool = False) -> Decision:
        """The decision for the next epoch.

        Args:
            available: `Judge.available()`.
            exhausted: whether the judge's budget is used up.
        """
        if exhausted:
            return Decision(stop="the judge's budget is used up: raise it and start the run again")
        if available:
            self.deferred_epochs = 0
            return Decision()
        if self.policy == "block":
            return Decision()
        if self.policy == "degrade":
            return Decision(judge=False)
        if self.policy == "abort":
            return Decision(stop="the judge is away, and the outage policy is to abort")
        self.deferred_epochs += 1
        if self.deferred_epochs > self.max_deferred_epochs:
            return Decision(
                stop=f"the judge is away, and {self.max_deferred_epochs} epochs without it are over"
            )
        return Decision(draw="without judge", judge=False)
