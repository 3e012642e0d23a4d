"""The agent's voice is a function of its envelope on a fixed grid."""

import numpy as np

from recipes.nano.vocoder import NOISE_PERIODS, PERIOD, vocode

RESPONSE = 0.3 * np.exp(-np.arange(60) / 9) * np.cos(np.arange(60) * 0.7)


def test_a_vowel_repeats_exactly_with_the_spectrum_it_had():
    pulses = np.zeros(100 * PERIOD)
    pulses[17::PERIOD] = 1  # any phase: the output's is fixed
    vowel = np.convolve(pulses, RESPONSE)[: pulses.size].astype(np.float32)
    said = vocode(vowel)
    middle = said[20 * PERIOD : 80 * PERIOD]
    np.testing.assert_allclose(middle[PERIOD:], middle[:-PERIOD], atol=2e-3)
    assert 0.7 < np.sqrt(np.mean(middle**2) / np.mean(vowel**2)) < 1.4
    spectra = [np.abs(np.fft.rfft(x[: 40 * PERIOD]))[::40] for x in (middle, vowel)]
    assert np.corrcoef(*spectra)[0, 1] > 0.9


def test_a_hiss_has_one_noise_whatever_noise_it_was():
    hisses = [
        vocode(np.random.default_rng(seed).normal(0, 0.1, 40 * PERIOD).astype(np.float32))
        for seed in (1, 2)
    ]
    assert np.corrcoef(*hisses)[0, 1] > 0.5
    turn = NOISE_PERIODS * PERIOD
    first = hisses[0][turn : 5 * turn].reshape(4, turn)
    assert np.corrcoef(first)[0, 1] > 0.3
    assert abs(np.corrcoef(first[0], np.roll(first[1], PERIOD))[0, 1]) < 0.3
    assert 0.5 < np.std(hisses[0]) / 0.1 < 2


def test_silence_stays_silent():
    assert np.abs(vocode(np.zeros(1600, np.float32))).max() < 1e-3
