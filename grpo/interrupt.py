"""A notice of pre-emption: the signal that a cloud sends before it takes the machine."""

import signal
import threading
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


class Preempted(OSError):
    """The run was told to stop; it has saved, and the same command continues it."""


class StopNotice:
    """Whether SIGTERM has come; while it is listened to, the signal does nothing else.

    With several processes the answer must come at the same step on each, so it is JAX's
    coordination service that listens and agrees on one.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before = None

    def at(self, step: int) -> bool:
        """Whether to save and stop now; call it with the same increasing steps on each process."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def __enter__(self) -> "StopNotice":
        alone = jax.process_count() == 1
        if alone and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
