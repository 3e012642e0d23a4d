"""How far a decoded signal is from its original, and how differently a voice detector hears it.

The detector's term is why a few thousand small steps are enough: the codec need not be understood,
it must be heard as speech where the original is speech (a timing-grade codec).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from rewards import resample_24k_to_16k, speech_probabilities

WINDOWS = {2048: 80, 512: 40}
"""Samples of each STFT window and its number of mel bands; hops are a quarter of a window."""
FLOOR = 1e-2
"""Added to mel magnitudes before the logarithm: about 60 dB below speech."""


HISS = 1e-4
"""Standard deviation of the noise under what the detector hears."""


class CodecLoss(NamedTuple):
    """Mean terms of the loss."""

    mel: Float[Array, ""]  # L1 between log-mel magnitudes
    magnitude: Float[Array, ""]  # L1 between magnitudes, relative to the original's
    level: Float[Array, ""]  # L1 between log energies of STFT frames: L1 alone comes out too quiet
    waveform: Float[Array, ""]  # L1
    detector: Float[Array, ""]  # cross-entropy with the detector's opinion of the original

    def total(self) -> Float[Array, ""]:
        """The weighted sum."""
        spectral = self.mel + 0.5 * self.magnitude + 0.5 * self.level
        return spectral + self.waveform + 0.5 * self.detector


def codec_loss(
    vad_params: Any, original: Float[Array, "B S"], decoded: Float[Array, "B S"]
) -> CodecLoss:
    """Compares waveforms at 24 kHz; S is a multiple of every hop."""
    mel, magnitude, level = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
    for window, bands in WINDOWS.items():
        filters = jnp.asarray(mel_filters(window, bands))
        wanted, got = (_magnitudes(pcm, window) for pcm in (original, decoded))
        logs = [jnp.log(spectrum @ filters + FLOOR) for spectrum in (wanted, got)]
        mel += jnp.mean(jnp.abs(logs[0] - logs[1])) / len(WINDOWS)
        energies = [
            jnp.log(jnp.sqrt(jnp.mean(spectrum**2, axis=-1)) + FLOOR) for spectrum in (wanted, got)
        ]
        level += jnp.mean(jnp.abs(energies[0] - energies[1])) / len(WINDOWS)
        scale = jnp.mean(wanted) + FLOOR
        magnitude += jnp.mean(jnp.abs(wanted - got)) / scale / len(WINDOWS)
    # The detector takes a root of spectral power: in digital silence its gradient is NaN.
    hiss = jnp.asarray(np.random.default_rng(0).normal(0, HISS, original.shape[1]), jnp.float32)
    heard = [
        speech_probabilities(vad_params, resample_24k_to_16k(pcm + hiss)).clip(1e-4, 1 - 1e-4)
        for pcm in (original, decoded)
    ]
    target = jax.lax.stop_gradient(heard[0])
    detector = -jnp.mean(target * jnp.log(heard[1]) + (1 - target) * jnp.log1p(-heard[1]))
    return CodecLoss(mel, magnitude, level, jnp.mean(jnp.abs(original - decoded)), detector)


def _magnitudes(pcm: Float[Array, "B S"], window: int) -> Float[Array, "B T F"]:
    """STFT magnitudes; windows are four neighbouring blocks, so nothing is gathered."""
    blocks = pcm.reshape(pcm.shape[0], -1, window // 4)
    count = blocks.shape[1] - 3
    frames = jnp.concatenate([blocks[:, i : i + count] for i in range(4)], axis=-1)
    spectrum = jnp.fft.rfft(frames * jnp.hanning(window))
    # The epsilon keeps the gradient of digital silence finite.
    return jnp.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-6)


def mel_filters(window: int, bands: int, sample_rate: int = 24_000) -> Float32[np.ndarray, "F M"]:
    """Triangles of unit sum, equally spaced on the mel scale from 0 Hz to half the sample rate."""
    highest = 2595 * np.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, bands + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(window, 1 / sample_rate)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles / np.maximum(triangles.sum(axis=0), 1e-6)).astype(np.float32)
