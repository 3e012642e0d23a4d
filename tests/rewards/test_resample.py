import jax.numpy as jnp
import numpy as np
import pytest

from rewards import resample_24k_to_16k


def resample(pcm):
    return np.asarray(resample_24k_to_16k(jnp.asarray(pcm, jnp.float32)[None]))[0]


def tone(frequency_hz, sample_rate, duration_s=1.0):
    time = np.arange(round(duration_s * sample_rate)) / sample_rate
    return np.sin(2 * np.pi * frequency_hz * time + 0.3)


@pytest.mark.parametrize("samples", [1, 2, 3, 191, 192, 193, 24_001])
def test_length_is_exact(samples):
    assert resample(np.zeros(samples)).shape == (-(-2 * samples // 3),)


@pytest.mark.parametrize("frequency_hz", [100, 440, 3000, 6500, 7200])
def test_speech_band_passes_with_zero_delay(frequency_hz):
    inner = slice(100, -100)
    expected = tone(frequency_hz, 16_000)[inner]
    np.testing.assert_allclose(
        resample(tone(frequency_hz, 24_000))[inner], expected, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("frequency_hz", [8050, 9000, 11_900])
def test_what_would_alias_is_removed(frequency_hz):
    assert np.abs(resample(tone(frequency_hz, 24_000))[100:-100]).max() < 1e-4


def test_an_impulse_stays_where_it_was():
    for at in (300, 3000, 3003):
        pcm = np.zeros(6000)
        pcm[at] = 1.0
        output = resample(pcm)
        centre = at * 2 // 3
        assert np.argmax(np.abs(output)) == centre
        reach = 40
        left, right = output[centre - reach : centre], output[centre + 1 : centre + 1 + reach]
        np.testing.assert_allclose(left[::-1], right, atol=1e-6)


def test_level_is_kept_across_blocks():
    np.testing.assert_allclose(resample(np.full(3000, 0.5))[100:-100], 0.5, atol=1e-6)


def test_rows_are_independent():
    pcm = np.random.default_rng(0).standard_normal((3, 700)).astype(np.float32)
    batch = np.asarray(resample_24k_to_16k(jnp.asarray(pcm)))
    for row, alone in zip(batch, pcm, strict=True):
        np.testing.assert_allclose(row, resample(alone), atol=1e-6)


def test_against_soxr():
    soxr = pytest.importorskip("soxr")
    # Noise without anything above 7 kHz, where the two filters differ by design.
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(24_000))
    spectrum[7_000:] = 0
    pcm = np.fft.irfft(spectrum).astype(np.float32) * np.hanning(24_000).astype(np.float32)
    ours, theirs = resample(pcm), soxr.resample(pcm, 24_000, 16_000, quality="VHQ")
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
