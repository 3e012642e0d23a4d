"""The agent's voice: flite's spectral envelope on an excitation that repeats exactly.

A codec's decoder has to invent the phase of everything it says, and learns that last. Here there is
nothing to invent: voiced sound is one pulse every 5 ms, unvoiced sound is filtered from one stretch
of noise that repeats every 40 ms, and both periods divide Mimi's frame of 80 ms. An utterance that
starts on the frame grid is therefore a function of its envelope alone, and 200 Hz is the rate at
which the decoder's first transposed convolution puts out columns: one pulse a column.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

PERIOD = 80
"""Samples between pulses, 5 ms at 16 kHz: 200 Hz."""
NOISE_PERIODS = 8
VOICED_CORRELATION = 0.65
"""A frame is voiced if it resembles the period before it at least that much."""
_FFT = 512
_KEPT, _FADED = 40, 70
"""Cepstral coefficients that are kept whole, and where the rest has faded out."""
_FLOOR = 1e-4


def vocode(pcm: Float32[np.ndarray, " S"]) -> Float32[np.ndarray, " S"]:
    """Speaks `pcm` again, locked to the grid of `PERIOD` that starts at its first sample.

    Args:
      pcm: speech at 16 kHz with a constant pitch of 200 Hz.
    """
    noise = np.random.default_rng(0).choice([-1.0, 1.0], NOISE_PERIODS * PERIOD)
    taper = np.hanning(2 * PERIOD)
    padded = np.pad(pcm, (2 * PERIOD, 2 * PERIOD))
    out = np.zeros(pcm.size + 2 * PERIOD + _FFT)
    for start in range(0, pcm.size, PERIOD):
        heard = padded[start : start + 4 * PERIOD]
        response = _response(heard[PERIOD : 3 * PERIOD] * taper)
        if _periodicity(heard) > VOICED_CORRELATION:
            out[start + PERIOD : start + PERIOD + _FFT] += response
            continue
        grain = noise[np.arange(start - PERIOD, start + PERIOD) % noise.size] * taper
        # The grain has the energy of the one pulse that it stands for.
        grain *= 1 / np.sqrt(np.sum(taper**2))
        sound = np.convolve(grain, response[: _FFT - 2 * PERIOD])
        out[start : start + sound.size] += sound
    return out[PERIOD : PERIOD + pcm.size].astype(np.float32)


def _response(windowed: Float[np.ndarray, " W"]) -> Float[np.ndarray, " N"]:
    """Minimum-phase impulse response with the smoothed spectrum of two periods."""
    log_spectrum = np.log(np.maximum(np.abs(np.fft.rfft(windowed, _FFT)), _FLOOR))
    cepstrum = np.fft.irfft(log_spectrum)
    fold = np.zeros(_FFT)
    fold[0], fold[1:_FADED] = cepstrum[0], 2 * cepstrum[1:_FADED]
    fold[_KEPT:_FADED] *= np.linspace(1, 0, _FADED - _KEPT)
    return np.fft.irfft(np.exp(np.fft.rfft(fold)))


def _periodicity(heard: Float[np.ndarray, " H"]) -> float:
    """Correlation of the two periods around the middle with those one period earlier."""
    middle = heard.size // 2
    later = heard[middle - PERIOD // 2 : middle + 3 * PERIOD // 2]
    earlier = heard[middle - 3 * PERIOD // 2 : middle + PERIOD // 2]
    energy = np.sqrt(np.dot(later, later) * np.dot(earlier, earlier))
    return float(np.dot(later, earlier) / (energy + 1e-5))
