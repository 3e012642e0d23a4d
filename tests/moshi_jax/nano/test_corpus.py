"""Files of composed conversations, and that the rules find in real speech what was planted."""

import json

import numpy as np
import pytest

from grpo.corpora.moshi_finetune import list_moshi_finetune
from mimi_jax import read_audio
from moshi_jax.nano.conversations import AGENT, USER, Voices, compose
from moshi_jax.nano.corpus import write_corpus


@pytest.fixture(scope="module")
def voices(bank):
    return Voices(bank)


def test_a_corpus_is_read_as_moshi_finetunes(voices, tmp_path):
    table = write_corpus(tmp_path, voices, seed=4, count=2, seconds=12.0)
    recordings = list_moshi_finetune(table).recordings
    assert [recording.name for recording in recordings] == ["00000.wav", "00001.wav"]
    wanted = compose(voices, (4, 1), seconds=12.0)
    assert recordings[1].transcript is not None
    agent, user = recordings[1].transcript()
    assert agent == wanted.words[AGENT] and user == wanted.words[USER]
    pcm = read_audio(tmp_path / "00001.wav", sample_rate=24_000, channels=2)
    np.testing.assert_allclose(pcm, wanted.pcm, atol=1e-4)
    events = json.loads((tmp_path / "00001.json").read_text())["events"]
    assert [event["kind"] for event in events] == [event.kind for event in wanted.events]


def test_a_stopped_run_goes_on(voices, tmp_path, monkeypatch):
    write_corpus(tmp_path, voices, seed=4, count=1, seconds=5.0)
    before = (tmp_path / "00000.wav").stat().st_mtime_ns
    write_corpus(tmp_path, voices, seed=4, count=3, seconds=5.0)
    assert (tmp_path / "00000.wav").stat().st_mtime_ns == before
    assert len((tmp_path / "data.jsonl").read_text().splitlines()) == 3
