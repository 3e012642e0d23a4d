"""Timing on machines that others use too: contestants take turns, medians and ratios are kept."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = ["Samples", "alternate"]


@dataclass(frozen=True)
class Samples:
    """Durations of calls of one contestant, in the order they were made."""

    wall_s: Float[np.ndarray, " N"]
    cpu_s: Float[np.ndarray, " N"]  # processor time of the whole process, all threads

    def quantile_ms(self, q: float) -> float:
        """Wall time that a share `q` of the calls stayed below, in milliseconds."""
        return float(np.quantile(self.wall_s, q)) * 1e3

    @property
    def median_ms(self) -> float:
        """Median wall time of a call in milliseconds."""
        return self.quantile_ms(0.5)

    @property
    def median_cpu_ms(self) -> float:
        """Median processor time of a call in milliseconds; other processes do not change it."""
        return float(np.median(self.cpu_s)) * 1e3


def alternate(
    contestants: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 2
) -> dict[str, Samples]:
    """Calls every contestant once a round, so that noise of the machine falls on all alike.

    Args:
        contestants: name -> one unit of work. It must wait for its own result.
        rounds: calls of each that are timed.
        warmup: calls of each before that: compilation, caches, thread pools.

    Raises:
        ValueError: `rounds` is below 1, or there is no contestant.
    """
    if rounds < 1 or not contestants:
        raise ValueError(
            f"got {rounds} rounds of {len(contestants)} contestants, expected at least 1 of each"
        )
    for work in contestants.values():
        for _ in range(warmup):
            work()
    times = {name: np.empty((rounds, 2)) for name in contestants}
    for turn in range(rounds):
        for name, work in contestants.items():
            started = time.perf_counter(), time.process_time()
            work()
            times[name][turn] = (
                time.perf_counter() - started[0],
                time.process_time() - started[1],
            )
    return {name: Samples(taken[:, 0], taken[:, 1]) for name, taken in times.items()}
