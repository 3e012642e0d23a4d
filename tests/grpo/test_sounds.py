"""What each perturbation does to audio, how much of it, and that it moves nothing in time."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from grpo import sounds
from mimi_jax.audio_file import read_audio
from rewards import load_vad
from rewards.timestamps import detect_speech

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

SAMPLE = Path(__file__).resolve().parents[2] / "moshi_jax" / "sample"
RATE = 24_000
LEVELS = {
    sounds.white_noise: 20.0,
    sounds.pink_noise: 20.0,
    sounds.hum: 20.0,
    sounds.reverb: 0.4,
    sounds.telephone: 8.0,
    sounds.packet_loss: 0.05,
    sounds.gain: -15.0,
    sounds.clipping: -12.0,
}
EVERY = pytest.mark.parametrize("perturb", LEVELS, ids=lambda f: f.__name__)


@pytest.fixture(scope="module")
def speech():
    """Ten seconds of the sample's user: two utterances, silence between them."""
    plan = json.loads((SAMPLE / "conversation.json").read_text())
    channel = plan["speakers"]["user"]["channel"]
    return read_audio(SAMPLE / plan["audio"], sample_rate=RATE)[channel, : 16 * RATE]


def rng(seed=0):
    return np.random.default_rng(seed)


def rms_db(pcm):
    return 10 * np.log10(np.mean(np.square(pcm, dtype=np.float64)))


def speech_db(pcm):
    return 20 * np.log10(sounds.speech_rms(pcm))


@EVERY
def test_nothing_moves_in_time(speech, perturb):
    heard = perturb(speech, LEVELS[perturb], rng())
    assert heard.shape == speech.shape
    assert heard.dtype == np.float32
    assert np.isfinite(heard).all()
    assert not np.array_equal(heard, speech)
    product = np.fft.irfft(np.fft.rfft(heard) * np.conj(np.fft.rfft(speech)))
    lag = int(np.argmax(product))
    assert min(lag, len(product) - lag) <= 1  # samples


@EVERY
def test_the_same_seed_gives_the_same_and_silence_stays_silence(speech, perturb):
    level, part = LEVELS[perturb], speech[: 4 * RATE]
    np.testing.assert_array_equal(perturb(part, level, rng(1)), perturb(part, level, rng(1)))
    silent = np.zeros(RATE, np.float32)
    np.testing.assert_array_equal(perturb(silent, level, rng()), silent)


def test_speech_is_still_found_where_it_was(speech):
    """Mild levels: the detector hears the words of the clean audio, whose labels are kept."""
    heard = [speech, *(perturb(speech, level, rng()) for perturb, level in LEVELS.items())]
    found = detect_speech(load_vad(), np.stack(heard), sample_rate=RATE)
    clean, *others = (np.concatenate([[s, e] for s, e in row]) for row in found)
    for perturb, edges in zip(LEVELS, others, strict=True):
        matched = [np.abs(edges - edge).min() for edge in clean]
        assert np.mean(np.array(matched) < 0.15) >= 0.8, perturb.__name__


@pytest.mark.parametrize("noise", [sounds.white_noise, sounds.pink_noise, sounds.hum])
@pytest.mark.parametrize("snr_db", [30.0, 0.0])
def test_noise_is_so_much_quieter_than_the_speech(speech, noise, snr_db):
    added = noise(speech, snr_db, rng()) - speech
    assert speech_db(speech) - rms_db(added) == pytest.approx(snr_db, abs=0.3)


def octave_db(pcm, low_hz):
    power = np.abs(np.fft.rfft(pcm)) ** 2
    hz = np.fft.rfftfreq(len(pcm), 1 / RATE)
    return 10 * np.log10(power[(hz >= low_hz) & (hz < 2 * low_hz)].sum())


def test_colours_of_noise(speech):
    for noise, slope_db in ((sounds.white_noise, 3.0), (sounds.pink_noise, 0.0)):
        added = noise(speech, 10.0, rng()) - speech
        octaves = [octave_db(added, hz) for hz in (500, 1000, 2000, 4000)]
        np.testing.assert_allclose(np.diff(octaves), slope_db, atol=0.3)


def test_hum_is_of_the_mains(speech):
    added = sounds.hum(speech, 10.0, rng()) - speech
    hz = np.fft.rfftfreq(len(added), 1 / RATE)[np.argmax(np.abs(np.fft.rfft(added)))]
    assert min(abs(hz - 50), abs(hz - 60)) < 0.5


def test_a_talker_is_another_voice_at_a_level(speech):
    other = read_audio(SAMPLE / "conversation.flac", sample_rate=RATE)[0, 8 * RATE : 12 * RATE]
    added = sounds.talker(speech, -15.0, rng(), other) - speech
    assert speech_db(speech) - speech_db(added) == pytest.approx(15.0, abs=1.0)
    # It is that voice, repeated, from somewhere in it on.
    period = added[: len(other)]
    product = np.fft.irfft(np.fft.rfft(period) * np.conj(np.fft.rfft(other)))
    peak = product.max() / np.sqrt(np.square(period).sum() * np.square(other).sum())
    assert peak > 0.99
    np.testing.assert_allclose(added[len(other) : 2 * len(other)], period, atol=1e-6)
    np.testing.assert_array_equal(sounds.talker(speech, -15.0, rng(), other[:0]), speech)


@pytest.mark.parametrize("decay_s", [0.3, 0.9])
def test_a_room_decays_by_60_db(decay_s):
    click = np.zeros(2 * RATE, np.float32)
    click[0] = 1.0
    tail = sounds.reverb(click, decay_s, rng())
    assert tail[0] == pytest.approx(1.0, abs=1e-4)  # the direct sound, undelayed
    assert -18.5 <= 10 * np.log10(np.square(tail[1:]).sum()) <= -5.5
    early, late = (
        rms_db(tail[round(s * RATE) : round((s + 0.05) * RATE)]) for s in (0.05, 0.05 + decay_s / 2)
    )
    assert early - late == pytest.approx(30.0, abs=1.5)


def test_a_telephone_has_no_highs_and_few_steps():
    time_s = np.arange(RATE) / RATE
    low, high = (0.3 * np.sin(2 * np.pi * hz * time_s).astype(np.float32) for hz in (1000, 6000))
    heard = sounds.telephone(low + high, 8.0, rng())
    assert rms_db(heard - low) < rms_db(low) - 30
    coarse = sounds.telephone(low, 4.0, rng())
    assert rms_db(coarse - low) > rms_db(heard - low) + 15


def test_lost_packets_are_a_share_of_the_time():
    tone = np.full(60 * RATE, 0.5, np.float32)
    heard = sounds.packet_loss(tone, 0.2, rng())
    assert np.mean(heard == 0) == pytest.approx(0.2, abs=0.03)
    assert set(np.unique(heard)) == {np.float32(0), np.float32(0.5)}
    edges = np.flatnonzero(np.diff(heard))
    gaps = [b - a for a, b in itertools.pairwise(edges) if heard[a + 1] == 0]
    assert min(gaps) >= 0.019 * RATE


def test_gain_and_clipping(speech):
    np.testing.assert_allclose(sounds.gain(speech, -20.0, rng()), speech * 0.1, atol=1e-7)
    assert np.abs(sounds.gain(speech, 40.0, rng())).max() == 1.0
    clipped = sounds.clipping(speech, -20.0, rng())
    limit = np.abs(speech).max() * 0.1
    assert np.abs(clipped).max() == pytest.approx(limit)
    quiet = np.abs(speech) <= limit
    np.testing.assert_array_equal(clipped[quiet], speech[quiet])
