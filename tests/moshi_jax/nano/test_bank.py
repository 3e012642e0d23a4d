"""The embedded recordings: complete, timed, and told apart by their melody."""

import json

import numpy as np
import pytest

from mimi_jax import write_audio
from moshi_jax.nano.bank import SAMPLE_RATE, bank_folder, read_bank
from moshi_jax.nano.sentences import LINES


@pytest.fixture(scope="module")
def recorded():
    return read_bank()


def test_every_line_can_be_said(recorded):
    for line in LINES:
        parts = list(recorded.spoken(line))
        assert [part[0].text for part in parts] == list(line.parts)
        for part in parts:
            assert len(part) == (1 if line.speaker == "agent" else 2)
            assert [take.variant for take in part] == list(range(len(part)))
            if line.split == "train":
                assert {take.split for take in part} == {"train"}


def test_a_heldout_sentence_of_the_agent_is_marked(recorded):
    marked = {r.text for r in recorded.recordings if r.split == "heldout"}
    assert {
        line.text for line in LINES if line.split == "heldout" and len(line.parts) == 1
    } <= marked


def test_an_unknown_part_is_refused_with_the_way_to_get_it(recorded):
    with pytest.raises(ValueError, match=r"no 'buy milk' of the user .* recipes\.nano\.bank"):
        recorded.variants("user", "buy milk", "fall")


def test_words_and_phones_are_where_the_sound_is(recorded):
    for recording in recorded.recordings:
        assert [word.name for word in recording.words] == recording.text.split()
        for items in (recording.words, recording.phones):
            edges = np.array([(item.start_s, item.end_s) for item in items])
            assert (edges[:, 1] > edges[:, 0]).all()
            assert (np.diff(edges[:, 0]) > 0).all()
            assert 0 <= edges[0, 0] < 0.03 and abs(edges[-1, 1] - recording.duration_s) < 0.03
        assert np.sqrt(np.mean(recording.pcm**2)) == pytest.approx(0.06, rel=0.02)
        assert np.abs(recording.pcm).max() < 1


def period(pcm, at_s):
    """Samples after which the sound around a time repeats best, between 100 and 400 Hz."""
    start = round(at_s * SAMPLE_RATE)
    piece = pcm[start : start + 480]
    lags = np.arange(60, 241)
    scores = [np.corrcoef(piece, pcm[start - lag : start - lag + 480])[0, 1] for lag in lags]
    return lags[int(np.argmax(scores))]


def test_the_agent_repeats_itself_every_5_ms(recorded):
    (taken,) = recorded.variants("agent", "the capital of italy is rome", "fall")
    phone = next(p for p in taken.phones[::-1] if p.name == "ow")
    assert period(taken.pcm, (phone.start_s + phone.end_s) / 2) == SAMPLE_RATE // 200


def test_the_user_falls_at_the_end_and_is_level_before_a_pause(recorded):
    level = recorded.variants("user", "tell me the capital of um", "level")[0]
    fall = recorded.variants("user", "tell me the capital of france", "fall")[0]
    um = level.words[-1]
    before = next(p for p in level.phones if p.name == "ae")
    held = period(level.pcm, um.start_s + 0.1) / period(level.pcm, before.start_s + 0.05)
    assert held == pytest.approx(1.0, abs=0.06)
    assert um.end_s - um.start_s > 0.3  # drawn out
    first = next(p for p in fall.phones if p.name == "ae")
    last = next(p for p in fall.phones[::-1] if p.name == "ae")
    assert period(fall.pcm, last.start_s + 0.05) > 1.15 * period(fall.pcm, first.start_s + 0.05)


def test_audio_and_times_that_do_not_belong_together_are_refused(tmp_path):
    times = json.loads((bank_folder() / "bank.json").read_text())
    (tmp_path / "bank.json").write_text(json.dumps(times))
    write_audio(tmp_path / "bank.flac", np.zeros(1600, np.float32), 16_000)
    with pytest.raises(ValueError, match=r"bank\.json tells of .* samples"):
        read_bank(tmp_path)
