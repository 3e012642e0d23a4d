"""Clips in processes: order kept, and a process that dies takes only its own clips."""

import os

import numpy as np
import pytest

from rewards.asr import Recognizer, RecognizerPool, Transcript


class Lengths:
    name, version = "lengths", "1"

    def transcribe(self, batch):
        if any(len(clip) == 13 for clip in batch):
            os._exit(1)
        return [Transcript(f"{len(clip)} by {os.getpid()}") for clip in batch]


@pytest.mark.slow
def test_processes():
    pool = RecognizerPool(Lengths, name="lengths", version="1", workers=1, clips_per_task=2)
    assert isinstance(pool, Recognizer)
    clips = [np.zeros(length, np.float32) for length in (5, 3, 8, 1, 2)]
    heard = [transcript.text.split(" by ") for transcript in pool.transcribe(clips)]
    assert [length for length, _ in heard] == ["5", "3", "8", "1", "2"]
    assert str(os.getpid()) not in {process for _, process in heard}
    heard = pool.transcribe([np.zeros(length, np.float32) for length in (4, 4, 13, 4)])
    assert heard[2:] == [None, None]
    assert pool.transcribe(clips[:1])[0].text.startswith("5 by ")  # a new pool
    pool.close()


def test_a_pool_of_nobody():
    with pytest.raises(ValueError, match="0 workers with 4 clips each"):
        RecognizerPool(Lengths, name="lengths", version="1", workers=0)
