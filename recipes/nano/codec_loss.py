"""How far a decoded signal is from its original.

Magnitudes alone leave the phase open, and a decoder finds it last. The agent's voice repeats
exactly (see `recipes.nano.vocoder`), so its complex spectrum can be asked for from the start.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

WINDOWS = {1920: 80, 480: 40, 240: 20}
"""Samples of each STFT window and its number of mel bands; hops are a quarter of a window."""
COMPLEX_WINDOW = 480
FLOOR = 1e-2
"""Added to mel magnitudes before the logarithm: about 60 dB below speech."""
HIGHEST_HZ = 8000.0
"""The voices hold nothing above it."""
FADING_HZ = 2000.0
"""Where the complex term counts half as much as at 0 Hz."""


class CodecLoss(NamedTuple):
    """Mean terms of the loss."""

    mel: Float[Array, ""]  # L1 between log-mel magnitudes
    magnitude: Float[Array, ""]  # L1 between magnitudes, relative to the original's
    level: Float[Array, ""]  # L1 between log energies of STFT frames: L1 alone comes out too quiet
    spectrum: Float[Array, ""]  # complex L1 of the agent's voice, relative to `scale`

    def total(self) -> Float[Array, ""]:
        """The weighted sum."""
        spectral = self.mel + 0.5 * self.magnitude + 0.5 * self.level
        return spectral + 2 * self.spectrum


def codec_loss(
    original: Float[Array, "B S"],
    decoded: Float[Array, "B S"],
    locked: Float[Array, " B"],
    scale: Float[Array, " F"],
) -> CodecLoss:
    """Compares waveforms at 24 kHz.

    Args:
      original: S is a multiple of every hop.
      decoded: the same length.
      locked: 1 for rows whose phase is a function of what is said, else 0.
      scale: mean magnitude of each frequency of the complex term (`mean_magnitude`).
    """
    mel, magnitude, level = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
    spectrum = jnp.zeros(())
    for window, bands in WINDOWS.items():
        filters = jnp.asarray(mel_filters(window, bands))
        both = _stft(jnp.concatenate([original, decoded]), window)
        wanted_and_got = jnp.split(_magnitudes(both), 2)
        wanted, got = wanted_and_got
        logs = [jnp.log(part @ filters + FLOOR) for part in wanted_and_got]
        mel += jnp.mean(jnp.abs(logs[0] - logs[1])) / len(WINDOWS)
        energies = [
            jnp.log(jnp.sqrt(jnp.mean(part**2, axis=-1)) + FLOOR) for part in wanted_and_got
        ]
        level += jnp.mean(jnp.abs(energies[0] - energies[1])) / len(WINDOWS)
        size = jnp.mean(wanted, axis=(1, 2), keepdims=True) + 0.1 * jnp.mean(wanted) + FLOOR
        magnitude += jnp.mean(jnp.abs(wanted - got) / size) / len(WINDOWS)
        if window == COMPLEX_WINDOW:
            first, second = jnp.split(both, 2)
            distance = _magnitudes(first - second)[..., : scale.shape[0]] / scale
            rows = jnp.mean(distance, axis=(1, 2))
            spectrum += jnp.sum(rows * locked) / original.shape[0]
    return CodecLoss(mel, magnitude, level, spectrum)


def mean_magnitude(pcm: Float32[np.ndarray, " S"]) -> Float32[np.ndarray, " F"]:
    """Scale of the complex term up to `HIGHEST_HZ`, from speech with little silence.

    It rises above the mean with frequency: what is understood is below 4 kHz.
    """
    whole = pcm[: pcm.size // COMPLEX_WINDOW * COMPLEX_WINDOW]
    magnitudes = np.asarray(_magnitudes(_stft(jnp.asarray(whole)[None], COMPLEX_WINDOW)))
    count = int(HIGHEST_HZ / 24_000 * COMPLEX_WINDOW)
    frequencies = np.arange(count) * 24_000 / COMPLEX_WINDOW
    return (magnitudes.mean(axis=(0, 1))[:count] + FLOOR) * (1 + frequencies / FADING_HZ)


def _stft(pcm: Float[Array, "B S"], window: int) -> jax.Array:
    """Complex spectra; windows are four neighbouring blocks, so nothing is gathered."""
    blocks = pcm.reshape(pcm.shape[0], -1, window // 4)
    count = blocks.shape[1] - 3
    frames = jnp.concatenate([blocks[:, i : i + count] for i in range(4)], axis=-1)
    return jnp.fft.rfft(frames * jnp.hanning(window))


def _magnitudes(spectrum: jax.Array) -> jax.Array:
    # The epsilon keeps the gradient of digital silence finite.
    return jnp.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-6)


def mel_filters(window: int, bands: int, sample_rate: int = 24_000) -> Float32[np.ndarray, "F M"]:
    """Triangles of unit sum, equally spaced on the mel scale from 0 Hz to `HIGHEST_HZ`.

    A last band holds everything above.
    """
    highest = 2595 * np.log10(1 + HIGHEST_HZ / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, bands + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(window, 1 / sample_rate)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = np.concatenate(
        [np.maximum(0, np.minimum(rising, falling)), (bins > HIGHEST_HZ).astype(float)], axis=1
    )
    kept = triangles[:, triangles.sum(axis=0) > 0]  # narrow bands of short windows hold no bin
    return (kept / kept.sum(axis=0)).astype(np.float32)
