"""What every judge is: cases in, verdicts out, without waiting.

A judge reads one dialogue and says how well the last reply of the model fits what was said before.
`submit` returns at once, so that judging runs beside the work that needs no judge.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable


@dataclass(frozen=True)
class Turn:
    """What one side said before the other began."""

    speaker: Literal["user", "model"]
    text: str


@dataclass(frozen=True)
class Case:
    """One question to the judge.

    Attributes:
        history: what was said before the reply, by whom, in order.
        reply: what the model answered; empty if it said nothing.
    """

    history: tuple[Turn, ...]
    reply: str


@dataclass(frozen=True)
class Verdict:
    """The answer to one case.

    Attributes:
        value: from 0 (unrelated, or nothing said) to 2 (natural and grounded); None = missing.
        reason: "judged", "cached", "silent" (nothing was said, which is worth 0 without a call),
            or why it is missing.
        raw: what the judge wrote, where it wrote something.
    """

    value: float | None
    reason: str
    raw: str | None = None


SILENT = Verdict(0.0, "silent")


class Handle:
    """Verdicts on their way."""

    def __init__(self, futures: Sequence["Future[Verdict]"]) -> None:
        self._futures = list(futures)

    def done(self) -> bool:
        """Whether every verdict is there."""
        return all(future.done() for future in self._futures)

    def result(self, timeout_s: float | None = None) -> list[Verdict]:
        """Wait for the verdicts, in the order of the cases.

        Args:
            timeout_s: a case not judged by then is missing ("not judged in time"), and its call
                is given up.
        """
        _, late = wait_for(self._futures, timeout=timeout_s)
        for future in late:
            future.cancel()
        return [
            Verdict(None, "not judged in time")
            if future in late or future.cancelled()
            else future.result()
            for future in self._futures
        ]


@runtime_checkable
class Judge(Protocol):
    """Anything that judges: a served language model, or the embedded one."""

    name: str
    """Which judge: in logs, reports and cache keys."""

    @property
    def exhausted(self) -> bool:
        """Whether its budget is used up: the run is to be saved and ended."""
        ...

    def submit(self, cases: Sequence[Case]) -> Handle:
        """Begin to judge; returns at once."""
        ...

    def available(self) -> bool:
        """Whether a new case would be judged now: not in an outage, not over budget."""
        ...

    def close(self) -> None:
        """Give up what is on its way and free threads and files."""
        ...
