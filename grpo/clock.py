"""Whether two recordings of one conversation share a clock, told by bleed.

A microphone hears a little of the other speaker. Where that is so, the cross-correlation of the two
files peaks at the difference of their clocks (plus milliseconds of flight). Studio recordings that
were cleaned of bleed have no peak, and say nothing.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from jaxtyping import Float32

from rewards.vad import SAMPLE_RATE

_WINDOW = 2**17  # samples, 8.2 s: longer than every shift that is looked for
_MAX_SHIFT_S = 2.0
_SIGNIFICANT = 12.0  # peak over standard deviation; noise stays below 6 among 64,000 lags


class ClockCheck:
    """Sums whitened cross-spectra of windows: GCC-PHAT (Knapp and Carter 1976)."""

    def __init__(self) -> None:
        self._rest = np.empty((2, 0), np.float32)
        self._sum = np.zeros(_WINDOW + 1, np.complex128)

    def update(self, pcm: Float32[np.ndarray, "2 N"]) -> None:
        """Hears the next samples at 16 kHz; the last window that is not full is not heard."""
        audio = np.concatenate([self._rest, pcm], axis=1)
        whole = audio.shape[1] // _WINDOW
        for number in range(whole):
            window = audio[:, number * _WINDOW : (number + 1) * _WINDOW]
            # Twice as long with zeros: a shift is no rotation.
            spectrum = scipy.fft.rfft(window, 2 * _WINDOW, axis=1)
            cross = spectrum[1] * np.conj(spectrum[0])
            self._sum += cross / np.maximum(np.abs(cross), 1e-12)
        self._rest = audio[:, whole * _WINDOW :]

    def shift_s(self) -> float | None:
        """How much later the second channel hears what both hear; None if they share nothing.

        Positive when the second file runs late. Sound travels 3 ms a metre: that much is normal.
        """
        correlation = scipy.fft.irfft(self._sum)
        reach = round(_MAX_SHIFT_S * SAMPLE_RATE)
        near = np.concatenate([correlation[-reach:], correlation[: reach + 1]])
        spread = near.std()
        peak = int(np.argmax(np.abs(near)))
        if spread == 0 or abs(near[peak]) < _SIGNIFICANT * spread:
            return None
        return (peak - reach) / SAMPLE_RATE
