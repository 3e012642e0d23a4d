"""Edges of speech: moved in to where the level falls away, and left alone in noise."""

import numpy as np
import pytest

from grpo.edges import frame_energy, refine_edges

RATE = 16_000


@pytest.fixture
def spoken():
    """Ten seconds; a sound from 2.00 to 4.00 s that ends softly, 20 dB down, in its last 0.2 s."""
    pcm = np.zeros((1, 10 * RATE), np.float32)
    sound = np.random.default_rng(0).normal(0, 0.1, 2 * RATE)
    sound[-RATE // 5 :] *= 0.1
    pcm[0, 2 * RATE : 4 * RATE] = sound
    return pcm


def refined(pcm, *ipus, edge_db=35.0):
    return refine_edges(ipus, frame_energy(pcm)[0], edge_db)


def test_energy_is_of_ten_milliseconds():
    energy = frame_energy(np.full((2, 1000), 0.5, np.float32))
    np.testing.assert_allclose(energy, np.full((2, 6), 160 * 0.25))


def test_both_edges_are_moved_in(spoken):
    assert refined(spoken, (1.95, 4.09)) == [pytest.approx((2.0, 4.0))]
    assert refined(spoken, (1.95, 4.09), edge_db=10.0) == [pytest.approx((2.0, 3.94))]


def test_never_outwards_and_not_far(spoken):
    assert refined(spoken, (2.5, 3.5)) == [(2.5, 3.5)]
    assert refined(spoken, (1.5, 4.5)) == [pytest.approx((1.65, 4.35))]


def test_an_edge_in_a_loud_room_stays(spoken):
    noise = np.random.default_rng(1).normal(0, 0.03, spoken.shape).astype(np.float32)
    assert refined(spoken + noise, (1.95, 4.09)) == [(1.95, 4.09)]


def test_hiss_does_not_hold_an_edge(spoken):
    hiss = np.random.default_rng(1).normal(0, 1e-3, spoken.shape).astype(np.float32)
    assert refined(spoken + hiss, (1.95, 4.09)) == [pytest.approx((2.0, 4.0), abs=0.011)]


def test_silence_has_no_edges():
    silent = np.zeros((1, RATE), np.float32)
    assert refined(silent, (0.2, 0.5), (0.9, 1.0)) == [(0.2, 0.5), (0.9, 1.0)]
    assert refined(silent[:, :100], (0.0, 0.005)) == [(0.0, 0.005)]
