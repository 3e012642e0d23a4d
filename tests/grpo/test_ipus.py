"""Levels, cross-talk and voice activity of two channels; speech comes from the sample."""

import json
from pathlib import Path

import numpy as np
import pytest

from grpo.ipus import SpeechConfig, to_level, two_channel_ipus, without_crosstalk
from grpo.segments import SAMPLE_RATE
from mimi_jax.audio_file import read_audio
from rewards.vad import load_vad

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

SAMPLE = Path(__file__).resolve().parents[2] / "moshi_jax" / "sample"


def level_db(pcm):
    return 10 * np.log10(np.mean(np.square(pcm, dtype=np.float64)))


@pytest.fixture(scope="module")
def sentence():
    """One sentence of the sample, about two seconds, without the silence around it."""
    plan = json.loads((SAMPLE / "conversation.json").read_text())
    channel = plan["speakers"]["user"]["channel"]
    phrase = plan["utterances"][0]["phrases"][-1]
    pcm = read_audio(SAMPLE / plan["audio"], sample_rate=SAMPLE_RATE)
    start, end = (round(phrase[name] * SAMPLE_RATE) for name in ("start_s", "end_s"))
    return pcm[channel, start:end]


def timeline(seconds, *events):
    """A silent channel with audio at the given seconds."""
    channel = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for start_s, audio in events:
        start = round(start_s * SAMPLE_RATE)
        channel[start : start + len(audio)] += audio
    return channel


def near(intervals, expected):
    assert len(intervals) == len(expected)
    np.testing.assert_allclose(intervals, expected, atol=0.15)


def test_speech_is_brought_to_one_level_whatever_the_silence_around_it():
    rng = np.random.default_rng(0)
    speech = rng.normal(0, 0.01, 2 * SAMPLE_RATE).astype(np.float32)
    for seconds in (2, 10, 60):
        quiet = timeline(seconds, (0.0, speech))
        levelled = to_level(quiet, -24.0)
        assert level_db(levelled[: len(speech)]) == pytest.approx(-24.0, abs=0.2)
        np.testing.assert_allclose(levelled * quiet[0] / levelled[0], quiet, atol=1e-7)
    assert to_level(speech[:100], -24.0).shape == (100,)


def test_a_channel_without_sound_stays_silent():
    silent = np.zeros(SAMPLE_RATE, np.float32)
    hiss = np.full(SAMPLE_RATE, 1e-4, np.float32)
    np.testing.assert_array_equal(to_level(silent, -24.0), silent)
    np.testing.assert_array_equal(to_level(hiss, -24.0), hiss)


def test_bleed_is_quieter_than_the_limit_and_under_the_other_speaker():
    rng = np.random.default_rng(0)
    loud = rng.normal(0, 0.1, 4 * SAMPLE_RATE).astype(np.float32)
    pcm = np.stack([loud, loud * 10 ** (-20 / 20)])
    ipus = [(0.0, 1.0), (2.0, 3.0)]

    def kept(other, **config):
        return without_crosstalk(pcm, ipus, other, channel=1, config=SpeechConfig(**config))

    assert kept([(0.0, 1.2)]) == [(2.0, 3.0)]
    assert kept([(0.0, 0.55)]) == ipus  # the other is active in only 55 %
    assert kept([(0.0, 0.35), (0.5, 0.8)]) == [(2.0, 3.0)]
    assert kept([(0.0, 4.0)], crosstalk_db=21.0) == ipus
    assert kept([(0.0, 4.0)], crosstalk_db=19.0) == []
    assert kept([(0.0, 4.0)], crosstalk_db=None) == ipus
    assert without_crosstalk(pcm, ipus, ipus, channel=0, config=SpeechConfig()) == ipus


def test_speech_bleed_and_level_through_the_detector(sentence):
    length_s = len(sentence) / SAMPLE_RATE
    bleed = sentence * 10 ** (-25 / 20)
    loud = timeline(12, (1.0, sentence), (8.0, sentence))
    quiet = timeline(12, (4.5, sentence)) * 10 ** (-30 / 20)  # a distant microphone
    pcm = np.stack([loud, quiet + timeline(12, (1.0, bleed), (8.0, bleed))])
    vad = load_vad()

    first, second = two_channel_ipus(vad, pcm, SpeechConfig())[0]
    near(first, [(1.0, 1.0 + length_s), (8.0, 8.0 + length_s)])
    near(second, [(4.5, 4.5 + length_s)])

    ungated = two_channel_ipus(vad, pcm, SpeechConfig(crosstalk_db=None))[0][1]
    near(ungated, [(start, start + length_s) for start in (1.0, 4.5, 8.0)])


def test_short_sounds_count_for_backchannels_only(sentence):
    syllable = sentence[: round(0.2 * SAMPLE_RATE)]
    pcm = np.stack([timeline(8, (4.0, syllable)), timeline(8, (1.0, sentence))])
    usual, short = two_channel_ipus(load_vad(), pcm, SpeechConfig())
    assert usual[0] == []
    near(short[0], [(4.0, 4.2)])
    assert usual[1] == short[1]
    assert len(usual[1]) == 1


def test_the_length_of_the_recording_does_not_matter(sentence):
    """30 s and 30.1 s are padded to different lengths."""
    vad = load_vad()
    found = []
    for seconds in (29.9, 30.1):
        pcm = np.stack([timeline(seconds, (1.0, sentence)), timeline(seconds, (27.0, sentence))])
        found.append(two_channel_ipus(vad, pcm, SpeechConfig()))
    assert found[0] == found[1]
    end_s = two_channel_ipus(vad, pcm[:, : round(28.0 * SAMPLE_RATE)], SpeechConfig())[0][1][0][1]
    assert end_s == pytest.approx(28.0, abs=1e-4)
