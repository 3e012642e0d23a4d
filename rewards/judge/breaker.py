"""A circuit breaker: an endpoint that keeps failing is left alone, then tried with one call."""

import time

from rewards.judge.limits import Clock


class Breaker:
    """The state of one endpoint.

    closed: calls go through. After `failures` of them in a row have failed: open, no call goes
    through for `cooldown_s`. Then half-open: one call probes; its success closes, its failure
    opens again.
    """

    def __init__(
        self, *, failures: int = 5, cooldown_s: float = 15.0, clock: Clock = time.monotonic
    ) -> None:
        if failures < 1 or not cooldown_s >= 0:
            raise ValueError(
                f"a breaker with {failures} failures and {cooldown_s} s of rest, "
                "expected at least 1 and at least 0"
            )
        self._limit, self._cooldown_s, self._clock = failures, cooldown_s, clock
        self._failed = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether the endpoint counts as away: open, or its probe is not back."""
        return self._opened_at is not None

    def wait_s(self) -> float:
        """How long until a call may be tried: 0 = now."""
        if self._opened_at is None:
            return 0.0
        if self._probing:
            return max(self._cooldown_s, 0.05)
        return max(0.0, self._opened_at + self._cooldown_s - self._clock())

    def begin(self) -> None:
        """Say that a call goes out."""
        if self._opened_at is not None:
            self._probing = True

    def succeed(self) -> None:
        """Say that the endpoint answered."""
        self._failed, self._opened_at, self._probing = 0, None, False

    def fail(self) -> None:
        """Say that the endpoint did not answer, or with a failure of its own."""
        self._failed += 1
        if self._opened_at is not None or self._failed >= self._limit:
            self._opened_at, self._probing = self._clock(), False

    def abandon(self) -> None:
        """Say that the call was given up before anything could be said about the endpoint."""
        self._probing = False
