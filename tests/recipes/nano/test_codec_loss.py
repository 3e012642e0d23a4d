"""The terms of the codec's loss, each by what it alone must notice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recipes.nano.codec_loss import codec_loss, mean_magnitude, mel_filters

TIMES = np.arange(1920 * 6) / 24_000
HARMONICS = [0.05 * np.cos(2 * np.pi * 200 * k * TIMES + k) / k**0.5 for k in range(1, 40)]
TONE = np.sum(HARMONICS, axis=0).astype(np.float32)


@pytest.fixture(scope="module")
def loss():
    scale = jnp.asarray(mean_magnitude(TONE))
    run = jax.jit(lambda wanted, got, locked: codec_loss(wanted, got, locked, scale))

    def of(got, locked=1.0):
        terms = run(TONE[None], np.asarray(got, np.float32)[None], jnp.array([locked]))
        return jax.tree.map(float, terms)._asdict()

    return of


def test_a_perfect_copy_costs_nothing_but_the_epsilon(loss):
    costs = loss(TONE)
    assert costs.pop("spectrum") < 0.03
    assert set(costs.values()) == {0.0}


def test_a_shift_costs_the_complex_term_only_and_only_where_phase_is_known(loss):
    shifted = np.roll(TONE, 40)
    assert loss(shifted)["spectrum"] > 0.3
    assert loss(shifted, locked=0.0)["spectrum"] == 0
    assert loss(shifted)["mel"] < 0.1


def test_what_is_understood_counts_more_than_what_is_above_it(loss):
    low, high = TONE - HARMONICS[4], TONE - HARMONICS[34]  # 1 kHz, 7 kHz
    copy, *without = (loss(sound)["spectrum"] for sound in (TONE, low, high))
    assert without[0] - copy > 2 * (without[1] - copy) > 0


def test_half_the_level_is_seen_by_the_level(loss):
    assert loss(0.5 * TONE)["level"] == pytest.approx(np.log(2), rel=0.25)


def test_a_lost_overtone_is_seen_by_mel_and_magnitude(loss):
    dull = np.sum(HARMONICS[:20], axis=0)
    assert loss(dull)["mel"] > 3 * loss(np.roll(TONE, 40))["mel"] + 0.05
    assert loss(dull)["magnitude"] > 0.1


def test_the_gradient_in_digital_silence_is_finite():
    scale = jnp.asarray(mean_magnitude(TONE))
    silent = jnp.zeros((1, 1920))
    gradient = jax.grad(lambda x: codec_loss(silent, x, jnp.ones(1), scale).total())(silent)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(("window", "bands"), [(1920, 80), (240, 20)])
def test_mel_triangles_have_unit_sums_and_the_last_band_is_all_above_8_khz(window, bands):
    filters = mel_filters(window, bands)
    np.testing.assert_allclose(filters.sum(axis=0), 1.0, rtol=1e-5)
    bins = np.fft.rfftfreq(window, 1 / 24_000)
    assert (filters[:, -1] > 0).tolist() == (bins > 8000).tolist()
    assert not filters[bins > 8000, :-1].any()
