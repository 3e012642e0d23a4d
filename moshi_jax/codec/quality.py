"""How far decoded audio is from what was encoded."""

import numpy as np
from jaxtyping import Float

__all__ = ["log_spectral_distance_db", "snr_db"]

_WINDOW, _HOP = 1024, 256
_FLOOR = 1e-8  # power, 80 dB below a full-scale bin of this window: silence is not compared


def snr_db(audio: Float[np.ndarray, " S"], decoded: Float[np.ndarray, " S"]) -> float:
    """Power of the audio over power of the difference, in dB; a codec of speech is near 0."""
    noise = float(np.mean((np.float64(decoded) - audio) ** 2))
    power = float(np.mean(np.float64(audio) ** 2))
    return float("inf") if noise == 0 else 10 * float(np.log10(max(power, 1e-20) / noise))


def log_spectral_distance_db(
    audio: Float[np.ndarray, " S"], decoded: Float[np.ndarray, " S"]
) -> float:
    """Root mean square difference of the log power spectra, in dB.

    Hann windows of 1024 samples every 256. Source: Gray and Markel, "Distance measures for speech
    processing", IEEE ASSP 24 (5), 1976.
    """
    ours, theirs = _log_power_db(audio), _log_power_db(decoded)
    return float(np.sqrt(np.mean((ours - theirs) ** 2)))


def _log_power_db(audio: np.ndarray) -> np.ndarray:
    padded = np.pad(audio.astype(np.float32), (0, max(0, _WINDOW - len(audio))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    hann = np.hanning(_WINDOW).astype(np.float32)
    power = np.abs(np.fft.rfft(windows * hann, axis=-1)) ** 2 / np.sum(hann) ** 2
    return 10 * np.log10(np.maximum(power, _FLOOR))
