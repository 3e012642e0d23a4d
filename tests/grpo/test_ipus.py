"""Loudness, cross-talk and voice activity of two channels; speech comes from the sample."""

import json
from pathlib import Path

import numpy as np
import pytest

from grpo.corpora import TwoChannelPcm
from grpo.corpora.pcm import DecodedPcm
from grpo.edges import frame_energy
from grpo.ipus import SpeechConfig, hear, without_crosstalk
from grpo.segments import SAMPLE_RATE
from mimi_jax.audio_file import read_audio
from rewards.vad import load_vad

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

SAMPLE = Path(__file__).resolve().parents[2] / "moshi_jax" / "sample"


def as_recording(pcm, sample_rate=SAMPLE_RATE):
    audio = DecodedPcm(pcm, sample_rate)
    return TwoChannelPcm("array", (audio, 0), (audio, 1), two_files=False)


def two_channel_ipus(vad, pcm, config):
    heard = hear(vad, as_recording(pcm), config)
    return heard.ipus, heard.ipus_backchannel


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


def test_a_quiet_speaker_is_heard_as_a_loud_one_is(sentence):
    """-40 dB, with the hiss of a line under both."""
    rng = np.random.default_rng(0)
    loud = timeline(12, (1.0, sentence), (8.0, sentence))
    loud += rng.normal(0, 1e-3, len(loud)).astype(np.float32)
    other = timeline(12, (4.5, sentence))
    quiet = loud * np.float32(10 ** (-40 / 20))
    vad, length_s = load_vad(), len(sentence) / SAMPLE_RATE

    def found(channel, **config):
        config = SpeechConfig(crosstalk_db=None, **config)
        return two_channel_ipus(vad, np.stack([other, channel]), config)[0][1]

    near(found(quiet), [(1.0, 1.0 + length_s), (8.0, 8.0 + length_s)])
    np.testing.assert_allclose(found(quiet), found(loud), atol=0.011)
    # As recorded the detector hears less of it, which is what the levels are for.
    assert found(quiet, level_lufs=None) != found(loud, level_lufs=None)


@pytest.mark.parametrize("channel", [0, 1])
def test_a_channel_without_sound_is_refused(sentence, channel):
    pcm = np.zeros((2, 4 * SAMPLE_RATE), np.float32)
    pcm[1 - channel, : len(sentence)] = sentence
    pcm[channel] = 1e-5  # a constant below -70 LUFS
    with pytest.raises(ValueError, match=f"channel {channel} is silent"):
        hear(load_vad(), as_recording(pcm), SpeechConfig())


def test_one_voice_on_both_channels_is_refused(sentence):
    with pytest.raises(ValueError, match="both channels are the same"):
        hear(load_vad(), as_recording(np.stack([sentence, sentence])), SpeechConfig())


def test_what_is_heard_besides_speech(sentence):
    pcm = np.stack([timeline(12, (1.0, sentence)), timeline(12, (5.0, sentence * 0.1))])
    heard = hear(load_vad(), as_recording(pcm), SpeechConfig())
    assert heard.duration_s == 12.0
    assert heard.lufs[0] - heard.lufs[1] == pytest.approx(20.0, abs=0.1)
    assert heard.clock_shift_s is None


def test_bleed_is_quieter_than_the_limit_and_under_the_other_speaker():
    rng = np.random.default_rng(0)
    loud = rng.normal(0, 0.1, 4 * 16_000).astype(np.float32)
    energy = frame_energy(np.stack([loud, loud * np.float32(10 ** (-20 / 20))]))
    ipus = [(0.0, 1.0), (2.0, 3.0)]

    def kept(other, **config):
        return without_crosstalk(energy, ipus, other, channel=1, config=SpeechConfig(**config))

    assert kept([(0.0, 1.2)]) == [(2.0, 3.0)]
    assert kept([(0.0, 0.55)]) == ipus  # the other is active in only 55 %
    assert kept([(0.0, 0.35), (0.5, 0.8)]) == [(2.0, 3.0)]
    assert kept([(0.0, 4.0)], crosstalk_db=21.0) == ipus
    assert kept([(0.0, 4.0)], crosstalk_db=19.0) == []
    assert kept([(0.0, 4.0)], crosstalk_db=None) == ipus
    assert without_crosstalk(energy, ipus, ipus, channel=0, config=SpeechConfig()) == ipus


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


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_the_sample_rate_does_not_matter(sentence, rate):
    from mimi_jax.audio_file import resample

    pcm = np.stack([timeline(8, (1.0, sentence)), timeline(8, (5.0, sentence))])
    heard = hear(load_vad(), as_recording(resample(pcm, SAMPLE_RATE, rate), rate), SpeechConfig())
    near(heard.ipus[0], [(1.0, 1.0 + len(sentence) / SAMPLE_RATE)])
    near(heard.ipus[1], [(5.0, 5.0 + len(sentence) / SAMPLE_RATE)])


def test_a_recording_of_many_blocks_is_heard_as_one(sentence):
    """Blocks are 30 s of the file and 32.8 s of the detector: speech lies across both joints."""
    vad = load_vad()
    pcm = np.stack(
        [timeline(100, (29.0, sentence), (64.8, sentence)), timeline(100, (32.0, sentence))]
    )
    first, second = two_channel_ipus(vad, pcm, SpeechConfig())[0]
    length_s = len(sentence) / SAMPLE_RATE
    near(first, [(29.0, 29.0 + length_s), (64.8, 64.8 + length_s)])
    near(second, [(32.0, 32.0 + length_s)])
    cut = two_channel_ipus(vad, pcm[:, : round(65.5 * SAMPLE_RATE)], SpeechConfig())[0][0]
    assert cut[1][1] == pytest.approx(65.5, abs=1e-4)
