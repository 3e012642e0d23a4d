"""The figures of a codec: equal signals agree, lost speech is missed, words are counted."""

from pathlib import Path

import numpy as np
import pytest

from moshi_jax.nano.bank import read_bank
from recipes.nano.quality import Placed, Quality, detection, recogniser, recognition, stream
from recipes.nano.tracks import FRAME


@pytest.fixture(scope="module")
def spoken():
    return stream(Quality(folder=Path("unused")), "agent")


def test_the_stream_is_every_heldout_sentence_on_the_grid(spoken):
    pcm, placed = spoken
    assert len(placed) == 16 and {p.start % FRAME for p in placed} == {0}
    assert {p.recording.split for p in placed} == {"heldout"}
    assert pcm.size % FRAME == 0
    for recording, start in placed:
        np.testing.assert_array_equal(pcm[start : start + recording.pcm.size], recording.pcm)
    anywhere = stream(Quality(folder=Path("unused"), off_grid=True), "agent")[1]
    assert len({p.start % FRAME for p in anywhere}) > 10


def test_the_detector_agrees_with_itself_and_misses_what_is_gone(spoken):
    pcm = spoken[0][: 20 * 24_000 // FRAME * FRAME]
    assert detection(pcm, pcm) == {
        "vad_agreement": 1.0, "vad_recall": 1.0, "vad_false_alarm": 0.0, "level": 1.0
    }  # fmt: skip
    gone = pcm.copy()
    gone[gone.size // 2 :] = 0
    found = detection(pcm, gone)
    assert 0.3 < found["vad_recall"] < 0.7 and found["vad_false_alarm"] < 0.02
    assert found["level"] == pytest.approx(0.7, abs=0.1)


def test_word_error_counts_the_words_of_all_sentences():
    (taken,) = read_bank().variants("agent", "yes of course", "fall")
    placed = [Placed(taken, 24_000), Placed(taken, 72_000)]
    original, decoded = np.zeros(144_000, np.float32), np.ones(144_000, np.float32)
    answers = {0.0: "yes of course", 1.0: "yes cars"}
    heard = recognition(lambda pcm: answers[float(pcm[0])], placed, original, decoded, 1)
    assert heard["words"] == 6
    assert heard["word_error_original"] == 0.0
    assert heard["word_error_round_trip"] == pytest.approx(4 / 6, abs=1e-3)
    assert heard["examples_round_trip"] == ["yes of course -> yes cars"]


def test_the_recogniser_reads_the_agent(spoken):
    pytest.importorskip("pocketsphinx")
    pcm, placed = spoken
    found = recognition(recogniser(), placed[:3], pcm, pcm, 0)
    assert found["word_error_original"] == found["word_error_round_trip"] < 0.4
