"""Making the next values while the last ones are being written."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_END = object()


def ahead(values: Iterable[T], size: Callable[[T], int], max_bytes: int) -> Iterator[T]:
    """The same values, made by a thread that is at most `max_bytes` (and one value) ahead.

    Args:
      values: what to iterate over, in that thread; what it raises is raised here.
      size: bytes of a value.
      max_bytes: how much may be waiting to be taken.
    """
    ready: queue.SimpleQueue = queue.SimpleQueue()
    state = threading.Condition()
    waiting, stopped = 0, False

    def may_go_on() -> bool:
        return stopped or waiting < max_bytes

    def make() -> None:
        nonlocal waiting
        try:
            for value in values:
                with state:
                    state.wait_for(may_go_on)
                    if stopped:
                        return
                    waiting += size(value)
                ready.put((value, None))
                del value  # nor may this frame keep what has been taken
            ready.put((_END, None))
        except BaseException as error:
            ready.put((_END, error))

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            value, error = ready.get()
            if error is not None:
                raise error
            if value is _END:
                return
            with state:
                waiting -= size(value)
                state.notify()
            yield value
            del value
    finally:
        with state:
            stopped = True
            state.notify()
        thread.join()
