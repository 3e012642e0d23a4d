"""Notes on recordings: taken once, found again, and honest about what could not be used."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from grpo.corpora import AudioRef, Recording, Word
from grpo.ipus import SpeechConfig
from grpo.segments import SAMPLE_RATE
from grpo.survey import Note, survey
from mimi_jax.audio_file import read_audio, write_audio

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

SAMPLE = Path(__file__).resolve().parents[2] / "moshi_jax" / "sample" / "conversation.flac"


@pytest.fixture(scope="module")
def speech():
    return read_audio(SAMPLE, sample_rate=SAMPLE_RATE)[:, : 16 * SAMPLE_RATE]


def recording(path, **about):
    ref = AudioRef(path)
    return Recording(name=path.name, channels=((ref, 0), (ref, 1)), **about)


def take(recordings, notes, seen=None):
    tell = (lambda *call: None) if seen is None else (lambda *call: seen.append(call))
    return survey(recordings, SpeechConfig(), notes, workers=1, tell=tell)


def words(first, second):
    return first, second


def broken():
    raise ValueError("broken JSON")


def test_notes_are_taken_once(tmp_path, speech, monkeypatch):
    for name in "ab":
        write_audio(tmp_path / f"{name}.wav", speech, SAMPLE_RATE)
    recordings = [recording(tmp_path / f"{name}.wav") for name in "ab"]
    notes = tmp_path / "notes"
    first = take(recordings[1:], notes)
    with open(notes, "a") as file:  # killed in the middle of a line
        file.write('{"name": "a.wav", "sta')
    seen = []
    second = take(recordings, notes, seen)
    assert seen == [("listening", 1, 2), ("listening", 2, 2)]
    assert list(second) == ["a.wav", "b.wav"]
    assert second["b.wav"] == first["b.wav"]
    monkeypatch.setattr("grpo.survey.hear", lambda *a, **k: pytest.fail("heard twice"))
    assert take(recordings, notes) == second


def test_a_file_that_changed_is_heard_again(tmp_path, speech):
    path, notes = tmp_path / "a.wav", tmp_path / "notes"
    write_audio(path, speech, SAMPLE_RATE)
    before = take([recording(path)], notes)["a.wav"]
    write_audio(path, speech[:, : 8 * SAMPLE_RATE], SAMPLE_RATE)
    after = take([recording(path)], notes)["a.wav"]
    assert (before.heard.duration_s, after.heard.duration_s) == (16.0, 8.0)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda pcm: pcm[:1], r"got 1 channel\(s\), expected 2"),
        (lambda pcm: pcm * np.float32([[0], [1]]), "channel 0 is silent"),
        (lambda pcm: pcm[[0, 0]], "both channels are the same"),
        (lambda pcm: np.where(np.arange(pcm.shape[1]) == 9000, np.nan, pcm), "NaN or infinite"),
        (lambda pcm: pcm[:, :0], "got no samples"),
    ],
    ids=["one channel", "silent", "same", "nan", "empty"],
)
def test_what_cannot_be_used_is_noted(tmp_path, speech, spoil, reason):
    import re

    import soundfile

    path = tmp_path / "a.wav"
    soundfile.write(path, spoil(speech).T, SAMPLE_RATE, subtype="FLOAT")
    note = take([recording(path)], tmp_path / "notes")["a.wav"]
    assert note.heard is None
    assert re.search(reason, note.error)


def test_a_bug_is_not_a_bad_file(tmp_path, speech, monkeypatch):
    def hear(*args, **options):
        raise TypeError("a bug")

    write_audio(tmp_path / "a.wav", speech, SAMPLE_RATE)
    monkeypatch.setattr("grpo.survey.hear", hear)
    with pytest.raises(TypeError, match="a bug"):
        take([recording(tmp_path / "a.wav")], tmp_path / "notes")


def test_a_transcript_has_to_fit_what_is_heard(tmp_path, speech):
    path = tmp_path / "a.wav"
    write_audio(path, speech, SAMPLE_RATE)
    heard = take([recording(path)], tmp_path / "0")["a.wav"].heard
    spans = [[Word("la", *ipu) for ipu in channel] for channel in heard.ipus]
    for number, (transcript, reason) in enumerate(
        [
            (partial(words, *spans), None),
            (partial(words, *reversed(spans)), "of which .*% are where speech is heard"),
            (broken, "broken JSON"),
            (partial(words, [], [Word("short", 0.0, 1.0)]), None),
        ]
    ):
        note = take([recording(path, transcript=transcript)], tmp_path / f"n{number}")["a.wav"]
        assert note.heard == heard
        assert (note.transcript_error is None) == (reason is None)
        if reason is not None:
            with pytest.raises(AssertionError, match=reason):
                raise AssertionError(note.transcript_error)


def test_a_note_there_and_back(tmp_path, speech):
    write_audio(tmp_path / "a.wav", speech, SAMPLE_RATE)
    note = take([recording(tmp_path / "a.wav")], tmp_path / "notes")["a.wav"]
    assert Note.from_line(note.to_line()) == note
    assert len(note.heard.ipus[0]) > 2
