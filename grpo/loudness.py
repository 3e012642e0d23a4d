"""Loudness of one channel by ITU-R BS.1770-4, measured as the audio comes in.

pyloudnorm measures the same, of a whole recording in memory.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float32
from scipy.signal import lfilter

_STEP_S, _STEPS = 0.1, 4  # blocks of 400 ms, overlapping by 75 %
_ABSOLUTE_LUFS, _RELATIVE_LU = -70.0, -10.0
_OFFSET = -0.691  # a sine of 997 Hz at full scale is -3.01 LUFS

# The K weighting as analog prototypes: a shelf for the head, and a high pass. They give the
# standard's coefficients at 48 kHz, and its response at any other rate.
_SHELF_HZ, _SHELF_DB, _SHELF_Q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
_PASS_HZ, _PASS_Q = 38.13547087602444, 0.5003270373238773


class LoudnessMeter:
    """Integrated loudness of C channels, each for itself.

    Args:
        sample_rate: in Hz.
        channels: C.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._numerator, self._denominator = k_weighting(sample_rate)
        self._state = np.zeros((channels, 4))
        self._step = round(_STEP_S * sample_rate)
        self._rest = np.empty((channels, 0))
        self._power: list[np.ndarray] = []  # mean squares of 100 ms

    def update(self, pcm: Float32[np.ndarray, "C N"]) -> None:
        """Hears the next samples."""
        audio = np.array(pcm, np.float64)
        # A tone of -240 dB at half the sample rate: in digital silence the filter would sink into
        # denormal numbers, which a processor adds ten times slower.
        audio[:, ::2] += 1e-12
        audio[:, 1::2] -= 1e-12
        weighted, self._state = lfilter(
            self._numerator, self._denominator, audio, axis=1, zi=self._state
        )
        weighted = np.concatenate([self._rest, weighted], axis=1)
        steps = weighted.shape[1] // self._step
        whole = weighted[:, : steps * self._step].reshape(len(weighted), steps, self._step)
        self._power.append(np.mean(np.square(whole), axis=2))
        self._rest = weighted[:, steps * self._step :]

    def integrated_lufs(self) -> list[float | None]:
        """Loudness of each channel so far; None where nothing is above -70 LUFS."""
        power = np.concatenate(self._power or [np.empty((len(self._rest), 0))], axis=1)
        if power.shape[1] < _STEPS:
            return [None] * len(power)
        blocks = np.lib.stride_tricks.sliding_window_view(power, _STEPS, axis=1).mean(axis=2)
        return [_gated_lufs(channel) for channel in blocks]


def k_weighting(
    sample_rate: int,
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Numerator and denominator of both second-order filters as one."""
    k = math.tan(math.pi * _SHELF_HZ / sample_rate)
    high = 10 ** (_SHELF_DB / 20)
    band = high**0.4996667741545416
    norm = 1 + k / _SHELF_Q + k * k
    shelf = (
        [
            (high + band * k / _SHELF_Q + k * k) / norm,
            2 * (k * k - high) / norm,
            (high - band * k / _SHELF_Q + k * k) / norm,
        ],
        [1.0, 2 * (k * k - 1) / norm, (1 - k / _SHELF_Q + k * k) / norm],
    )
    k = math.tan(math.pi * _PASS_HZ / sample_rate)
    norm = 1 + k / _PASS_Q + k * k
    high_pass = (
        [1.0, -2.0, 1.0],
        [1.0, 2 * (k * k - 1) / norm, (1 - k / _PASS_Q + k * k) / norm],
    )
    numerator, denominator = (
        np.polymul(one, other) for one, other in zip(shelf, high_pass, strict=True)
    )
    return numerator, denominator


def _gated_lufs(power: Float[np.ndarray, " B"]) -> float | None:
    def lufs(mean: float) -> float:
        return _OFFSET + 10 * math.log10(mean)

    power = power[power > 10 ** ((_ABSOLUTE_LUFS - _OFFSET) / 10)]
    if power.size == 0:
        return None
    relative = lufs(power.mean()) + _RELATIVE_LU
    return lufs(power[power > 10 ** ((relative - _OFFSET) / 10)].mean())
