"""flite through ctypes: the same text gives the same sound, times fit it, features are obeyed."""

import ctypes

import numpy as np
import pytest

from recipes.nano import speech
from recipes.nano.speech import SAMPLE_RATE, Voice


@pytest.fixture(scope="module")
def voice():
    try:
        return Voice("awb")
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_times_tile_the_utterance(voice):
    spoken = voice.say("the bank opens at nine", pitch_hz=200.0)
    assert [word.name for word in spoken.words] == ["the", "bank", "opens", "at", "nine"]
    starts, ends = zip(*((p.start_s, p.end_s) for p in spoken.phones), strict=True)
    assert starts == (0.0, *ends[:-1]) and {p.name for p in spoken.phones[:: len(starts) - 1]} == {
        "pau"
    }
    assert ends[-1] == pytest.approx(spoken.pcm.size / SAMPLE_RATE, abs=0.01)
    for one, following in zip(spoken.words, spoken.words[1:], strict=False):
        assert one.end_s == following.start_s
    start, end = (round(t * SAMPLE_RATE) for t in (spoken.words[0].start_s, ends[-2]))
    inside, outside = spoken.pcm[start:end], np.delete(spoken.pcm, np.s_[start:end])
    assert np.mean(inside**2) > 100 * np.mean(outside**2)


def test_stretch_and_pitch_are_obeyed_and_nothing_is_random(voice):
    plain, again = (voice.say("yes of course", pitch_hz=200.0) for _ in range(2))
    np.testing.assert_array_equal(plain.pcm, again.pcm)
    slow = voice.say("yes of course", pitch_hz=200.0, stretch=1.5)
    assert slow.pcm.size == pytest.approx(1.5 * plain.pcm.size, rel=0.03)
    low = voice.say("yes of course", pitch_hz=100.0)
    assert low.phones == plain.phones and not np.array_equal(low.pcm, plain.pcm)


def test_nothing_to_say_is_refused(voice):
    with pytest.raises(ValueError, match="give English words"):
        voice.say("", pitch_hz=200.0)


def test_a_missing_library_names_its_package(monkeypatch):
    def missing(name, mode=0):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    speech._flite.cache_clear()
    with pytest.raises(FileNotFoundError, match="apt-get install libflite1"):
        Voice("awb")
