"""What a judge may use: a rate, which makes calls wait, and a budget, which ends them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[object]]


class Bucket:
    """A token bucket: at most `per_minute` units in a minute, in one burst or evenly.

    Args:
        per_minute: refill and capacity; None = no limit.
        clock: seconds, monotonic.
        sleep: waits, for the loop that runs the calls.
    """

    def __init__(
        self, per_minute: float | None, *, clock: Clock = time.monotonic, sleep: Sleep | None = None
    ) -> None:
        if per_minute is not None and not per_minute > 0:
            raise ValueError(f"a rate is {per_minute} per minute, expected a positive number")
        self._per_minute = per_minute
        self._clock, self._sleep = clock, sleep or asyncio.sleep
        self._level, self._at = per_minute or 0.0, clock()

    async def take(self, amount: float = 1.0) -> None:
        """Wait until `amount` is there and take it; more than a minute's worth waits for all."""
        if self._per_minute is None:
            return
        amount = min(amount, self._per_minute)
        while True:
            now = self._clock()
            refill = (now - self._at) * self._per_minute / 60
            self._level, self._at = min(self._per_minute, self._level + refill), now
            if self._level >= amount - 1e-9:
                self._level -= amount
                return
            await self._sleep((amount - self._level) * 60 / self._per_minute)


@dataclass
class Usage:
    """Calls made (retries are calls) and tokens used, prompt and answer."""

    calls: int = 0
    tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The most a run may use; None = no limit."""

    max_calls: int | None = None
    max_tokens: int | None = None

    def allows(self, used: Usage) -> bool:
        """Whether one more call may be made."""
        return (self.max_calls is None or used.calls < self.max_calls) and (
            self.max_tokens is None or used.tokens < self.max_tokens
        )
