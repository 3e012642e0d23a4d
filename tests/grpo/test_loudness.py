"""Loudness against the standard's calibration tone and against pyloudnorm."""

from pathlib import Path

import numpy as np
import pytest

from grpo.loudness import LoudnessMeter
from mimi_jax.audio_file import read_audio

SAMPLE = Path(__file__).resolve().parents[2] / "moshi_jax" / "sample" / "conversation.flac"


def measure(pcm, rate, block=100_003):
    meter = LoudnessMeter(rate, len(pcm))
    for start in range(0, pcm.shape[1], block):
        meter.update(pcm[:, start : start + block])
    return meter.integrated_lufs()


def tone(rate, seconds=10.0, amplitude=1.0):
    time_s = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * 997 * time_s)).astype(np.float32)


@pytest.mark.parametrize(("rate", "tolerance"), [(48_000, 0.01), (16_000, 0.06), (8_000, 0.06)])
def test_a_full_scale_tone_of_997_hz_is_minus_3_lufs(rate, tolerance):
    pcm = np.stack([tone(rate), tone(rate, amplitude=0.1)])
    assert measure(pcm, rate) == pytest.approx([-3.01, -23.01], abs=tolerance)


def test_silence_between_speech_does_not_count():
    rate = 16_000
    sound = np.concatenate([tone(rate, 4), np.zeros(40 * rate, np.float32), tone(rate, 4)])
    quiet = np.concatenate([tone(rate, 4), tone(rate, 40, 0.01), tone(rate, 4)])  # -40 dB: gated
    expected = measure(tone(rate)[None], rate)[0]
    # The blocks at the joints count half.
    assert measure(np.stack([sound, quiet]), rate) == pytest.approx([expected] * 2, abs=0.2)


def test_nothing_to_measure_is_none():
    rate = 16_000
    silent = np.zeros(rate, np.float32)
    hiss = np.random.default_rng(0).normal(0, 1e-5, rate).astype(np.float32)
    assert measure(np.stack([silent, hiss]), rate) == [None, None]
    assert measure(tone(rate, 0.3)[None], rate) == [None]  # less than one block


def test_blocks_do_not_matter():
    pcm = np.random.default_rng(0).normal(0, 0.1, (2, 50_000)).astype(np.float32)
    whole = measure(pcm, 16_000, block=50_000)
    assert measure(pcm, 16_000, block=777) == pytest.approx(whole, abs=1e-9)


def test_equals_pyloudnorm():
    pytest.importorskip("soundfile")
    pyloudnorm = pytest.importorskip("pyloudnorm")
    pcm = read_audio(SAMPLE, sample_rate=24_000)
    meter = pyloudnorm.Meter(24_000, filter_class="DeMan")
    expected = [meter.integrated_loudness(np.float64(channel)) for channel in pcm]
    assert measure(pcm, 24_000) == pytest.approx(expected, abs=1e-6)
