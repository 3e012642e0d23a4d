"""A recognizer in processes of its own: beside the devices' host threads, on all cores."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
from jaxtyping import Float32

from rewards.asr.protocol import Recognizer, Transcript

_worker: Recognizer | None = None  # of this process, if it is one of the pool


class RecognizerPool:
    """A `Recognizer` that hands clips to processes, each with a recognizer of its own.

    Args:
        make: gives the recognizer; picklable (a function of a module, or a partial of one).
        name: as the recognizer's.
        version: as the recognizer's.
        workers: number of processes.
        clips_per_task: clips a process takes at a time.

    A process that dies takes its clips with it: they are missing, and the pool starts anew.
    """

    def __init__(
        self,
        make: Callable[[], Recognizer],
        *,
        name: str,
        version: str,
        workers: int,
        clips_per_task: int = 4,
    ) -> None:
        if workers < 1 or clips_per_task < 1:
            raise ValueError(
                f"{workers} workers with {clips_per_task} clips each, expected 1 or more"
            )
        self.name, self.version = name, version
        self._make, self._workers, self._clips = make, workers, clips_per_task
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        # Spawned: a fork of a process with XLA's threads may hang.
        return ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(self._make,),
        )

    def transcribe(self, batch: Sequence[Float32[np.ndarray, "..."]]) -> list[Transcript | None]:
        """See `Recognizer.transcribe`."""
        parts = [batch[i : i + self._clips] for i in range(0, len(batch), self._clips)]
        tasks = [self._pool.submit(_transcribe, list(part)) for part in parts]
        heard: list[Transcript | None] = []
        broken = False
        for task, part in zip(tasks, parts, strict=True):
            try:
                heard += task.result()
            except BrokenProcessPool:
                broken = True
                heard += [None] * len(part)
        if broken:
            self.close()
            self._pool = self._start()
        return heard

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)


def _begin(make: Callable[[], Recognizer]) -> None:
    global _worker
    _worker = make()


def _transcribe(batch: list[Float32[np.ndarray, "..."]]) -> list[Transcript | None]:
    assert _worker is not None
    return _worker.transcribe(batch)
