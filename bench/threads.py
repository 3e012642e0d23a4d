"""As many processor threads for every contestant of a benchmark."""

import os

__all__ = ["limit_threads"]


def limit_threads(count: int) -> None:
    """Keeps this process, and the threads it will start, on the first `count` of its processors.

    XLA, OpenMP, MKL and rayon size their pools by it when they first have work: call this before.

    Raises:
      ValueError: fewer processors are there, or `count` is below 1.
      RuntimeError: the system cannot restrict a process.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise RuntimeError(
            "this system cannot restrict a process to some processors; run on Linux, or leave "
            "--threads out"
        )
    allowed = sorted(os.sched_getaffinity(0))
    if not 1 <= count <= len(allowed):
        raise ValueError(f"got {count} threads, expected 1 to {len(allowed)}, the processors here")
    os.sched_setaffinity(0, allowed[:count])
