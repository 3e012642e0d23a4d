"""Timing one program a frame at a time, and the memory bandwidth that bounds it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import Float

__all__ = ["Latency", "measure", "measured_bandwidth", "uncached"]

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Latency:
    """Durations of consecutive calls in seconds."""

    frame_s: Float[np.ndarray, " N"]  # from the call until the result is there
    dispatch_s: Float[np.ndarray, " N"]  # until the call returned: the host's part
    harness_s: float  # what the clock readings of one call cost

    def quantiles_ms(self) -> dict[str, float]:
        """p50, p90, p95, p99 and max in milliseconds."""
        return {
            name: round(float(np.quantile(self.frame_s, q)) * 1e3, 4)
            for name, q in QUANTILES.items()
        }


def measure(call: Callable[[], Any], *, frames: int, warmup: int) -> Latency:
    """Times `frames` calls after `warmup` that do not count.

    Args:
      call: starts one frame and returns what it will give; it is waited for here.
      frames: calls that are timed.
      warmup: calls before them.
    """
    for _ in range(warmup):
        jax.block_until_ready(call())
    times = np.empty((frames, 3))
    clock = time.perf_counter
    for frame in range(frames):
        begun = clock()
        out = call()
        returned = clock()
        jax.block_until_ready(out)
        times[frame] = begun, returned, clock()
    empty = np.empty((1000, 3))
    start = clock()
    for index in range(1000):
        empty[index] = clock(), clock(), clock()
    harness_s = (clock() - start) / 1000
    begun, returned, done = times.T
    return Latency(done - begun, returned - begun, harness_s)


def measured_bandwidth(megabytes: int = 256) -> float:
    """Bytes a second that the default device reads: the best of five passes over a large array.

    A matrix times a vector and a sum: whichever this device does faster.
    """
    rows = megabytes * 2**20 // 4 // 4096
    matrix = jnp.ones((rows, 4096), jnp.float32)
    vector = jnp.ones((rows,), jnp.float32)
    best = float("inf")
    for program, operands in (
        (jax.jit(lambda v, m: v @ m), (vector, matrix)),
        (jax.jit(jnp.sum), (matrix,)),
    ):
        jax.block_until_ready(program(*operands))
        for _ in range(5):
            begun = time.perf_counter()
            jax.block_until_ready(program(*operands))
            best = min(best, time.perf_counter() - begun)
    return matrix.nbytes / best


@contextmanager
def uncached() -> Iterator[None]:
    """Compiling in this block is real work: nothing comes from the persistent cache."""
    enabled = jax.config.values["jax_enable_compilation_cache"]
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # JAX asks whether to use it only once
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()
