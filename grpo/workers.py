"""The same work on many items in several processes, none of which can take the run down."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class WorkerDied(Exception):
    """The process that worked on an item ended: a crash in a decoder, or out of memory."""


def run_all(
    work: Callable[[T], R], items: Sequence[T], *, workers: int
) -> Iterator[tuple[T, R | WorkerDied]]:
    """Calls `work` on every item, yielding each with its result as it comes, in no fixed order.

    Args:
        work: a function of a module (it is sent to other processes). What it raises ends the run.
        items: arguments; they are sent to other processes.
        workers: processes; 1 works in this one.

    Yields:
        Item and result; `WorkerDied` for an item that ends its process twice, once in company and
        once alone.
    """
    if workers == 1 or len(items) < 2:
        yield from ((item, work(item)) for item in items)
        return
    waiting = list(reversed(items))
    while waiting:
        suspects: list[T] = []
        with _pool(workers) as pool:
            running: dict[Future[R], T] = {}
            while waiting or running:
                while waiting and len(running) < 2 * workers and not suspects:
                    item = waiting.pop()
                    running[pool.submit(work, item)] = item
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    item = running.pop(future)
                    try:
                        yield item, future.result()
                    except BrokenProcessPool:
                        suspects.append(item)  # and so will be all that are running
                if suspects and not running:
                    break
        for item in suspects:
            yield item, _alone(work, item)


def _alone(work: Callable[[T], R], item: T) -> R | WorkerDied:
    with _pool(1) as pool:
        try:
            return pool.submit(work, item).result()
        except BrokenProcessPool:
            return WorkerDied("the process that read it ended (crash of a decoder, or memory)")


def _pool(workers: int) -> ProcessPoolExecutor:
    # Not forked: JAX has threads.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare)


def _prepare() -> None:
    """One core for each process, and no accelerator: several processes cannot share a TPU."""
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    jax.config.update("jax_platforms", "cpu")
