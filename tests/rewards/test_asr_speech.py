"""Only speech is heard, nothing twice, and a failure is not silence."""

import numpy as np
import pytest

from rewards.asr import Transcript, TranscriptCache, Word, transcribe_speech
from rewards.asr.cache import clip_key
from rewards.asr.speech import clip_spans


class Counting:
    """Says how many samples each clip has; fails on clips of a given length."""

    name, version = "counting", "1"

    def __init__(self, fails=()):
        self.batches = []
        self.fails = fails

    def transcribe(self, batch):
        self.batches.append([len(clip) for clip in batch])
        return [
            None if len(clip) in self.fails else Transcript(f"{len(clip)} samples")
            for clip in batch
        ]


def rows(*seconds):
    rng = np.random.default_rng(0)
    return [rng.normal(size=round(16_000 * s)).astype(np.float32) for s in seconds]


def test_only_utterances_are_heard_with_a_margin():
    recognizer = Counting()
    speech = [[(1.0, 2.0), (2.5, 3.0), (5.0, 6.0)], []]
    heard = transcribe_speech(recognizer, rows(10, 10), speech)
    assert heard == [[(1.0, Transcript("35200 samples")), (5.0, Transcript("19200 samples"))], []]
    assert recognizer.batches == [[35_200, 19_200]]  # in one call, the longest first


def test_nothing_is_heard_twice(tmp_path):
    (row,) = rows(4)
    speech = [[(1.0, 2.0)], [(1.0, 2.0)]]
    cache = TranscriptCache(tmp_path / "asr" / "cache.sqlite")
    first = Counting()
    heard = transcribe_speech(first, [row, row.copy()], speech, cache=cache)
    assert heard[0] == heard[1] == [(1.0, Transcript("19200 samples"))]
    assert first.batches == [[19_200]]
    cache.close()
    cache = TranscriptCache(tmp_path / "asr" / "cache.sqlite")
    again = Counting()
    assert transcribe_speech(again, [row], speech[:1], cache=cache) == heard[:1]
    assert again.batches == []
    again.version = "2"
    transcribe_speech(again, [row], speech[:1], cache=cache)
    assert again.batches == [[19_200]]
    cache.close()


def test_a_failure_is_missing_and_is_tried_again():
    cache = TranscriptCache()
    failing = Counting(fails=[19_200])
    (heard,) = transcribe_speech(failing, rows(4), [[(1.0, 2.0)]], cache=cache)
    assert heard == [(1.0, None)]
    (heard,) = transcribe_speech(Counting(), rows(4), [[(1.0, 2.0)]], cache=cache)
    assert heard == [(1.0, Transcript("19200 samples"))]
    cache.close()


def test_long_utterances_are_cut_at_their_widest_pauses():
    speech = [(0.0, 9.0), (9.2, 15.0), (15.8, 24.0), (24.3, 30.0)]
    assert clip_spans(speech) == [(0.0, 15.0), (15.8, 30.0)]
    assert clip_spans(speech, max_s=10.0) == [(0.0, 9.0), (9.2, 15.0), (15.8, 24.0), (24.3, 30.0)]
    assert clip_spans([(0.0, 50.0)]) == [(0.0, 50.0)]  # no pause to cut at
    assert clip_spans([]) == []


def test_rows_and_speech_must_fit():
    with pytest.raises(ValueError, match="1 lists of speech for 2 rows"):
        transcribe_speech(Counting(), rows(1, 1), [[]])


def test_words_survive_the_cache():
    cache = TranscriptCache()
    transcript = Transcript("hi you", (Word("hi", 0.1, 0.2), Word("you", 0.3, 0.5)), -0.25)
    cache.add("k", transcript)
    assert cache.get("k") == transcript
    assert cache.get("other") is None
    cache.close()


def test_keys_tell_audio_and_recognizers_apart():
    (row,) = rows(1)
    one, other = Counting(), Counting()
    other.name = "other"
    keys = {clip_key(one, row), clip_key(other, row), clip_key(one, row[:-1]), clip_key(one, -row)}
    assert len(keys) == 4
    assert clip_key(Counting(), row.copy()) in keys


def test_a_file_that_is_no_cache(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_text("no database at all, and long enough to see that" * 40)
    with pytest.raises(ValueError, match=r"cache.sqlite: file is not a database"):
        TranscriptCache(path)
