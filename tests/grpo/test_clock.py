"""Two recorders of one conversation: bleed tells how far their clocks are apart."""

import numpy as np
import pytest

from grpo.clock import ClockCheck

RATE = 16_000


def shift_of(first, second, block=40_000):
    clock = ClockCheck()
    for start in range(0, len(first), block):
        clock.update(np.stack([first, second])[:, start : start + block].astype(np.float32))
    return clock.shift_s()


@pytest.fixture
def voices():
    """A minute of two speakers in turn: noise with the envelope of syllables."""
    rng = np.random.default_rng(0)
    envelope = np.repeat(rng.uniform(0, 1, 60 * 8) ** 2, RATE // 8)
    turns = np.repeat(rng.permutation([1.0, 0.0] * 10), 3 * RATE)
    return rng.normal(0, 0.1, (2, 60 * RATE)) * envelope * np.stack([turns, 1 - turns])


@pytest.mark.parametrize("shift_s", [0.0, 0.003, -0.25, 1.5])
def test_bleed_shows_the_shift(voices, shift_s):
    one, other = voices
    late = np.roll(one, round(shift_s * RATE))
    noise = np.random.default_rng(1).normal(0, 1e-4, len(one))
    assert shift_of(one, other + 0.01 * late + noise) == pytest.approx(shift_s, abs=1e-4)


def test_bleed_the_other_way(voices):
    """The second file runs late: what it holds of its own speaker, the first one has earlier."""
    one, other = voices
    assert shift_of(one + 0.01 * other, np.roll(other, 800)) == pytest.approx(0.05, abs=1e-4)


def test_without_bleed_nothing_can_be_said(voices):
    assert shift_of(*voices) is None
    assert shift_of(*np.zeros((2, 10 * RATE))) is None
    assert shift_of(*voices[:, :1000]) is None
