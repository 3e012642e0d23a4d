"""24 kHz to 16 kHz on the device: a polyphase filter by 2/3 with zero delay."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Kaiser-windowed sinc: flat to 7.2 kHz, 90 dB down from 8 kHz, the new Nyquist frequency.
_CUTOFF = 7_600 / 24_000  # cycles per input sample
_STOPBAND_DB = 90.0
_REACH = 84  # input samples a filter looks back, and forth from the second output of a triple
_TRIPLES = 64  # 3 input and 2 output samples each, in a block


@functools.cache
def _filters() -> Float[np.ndarray, "K 2"]:
    """Taps of the two phases: outputs 2i and 2i + 1 lie at inputs 3i and 3i + 1.5."""
    beta = 0.1102 * (_STOPBAND_DB - 8.7)
    inputs = np.arange(-_REACH, _REACH + 3)
    distance = inputs[:, None] - np.array([0.0, 1.5])
    inside = np.clip(1 - (distance / (_REACH + 0.5)) ** 2, 0, None)
    window = np.where(inside > 0, np.i0(beta * np.sqrt(inside)) / np.i0(beta), 0)
    taps = np.sinc(2 * _CUTOFF * distance) * window
    return taps / taps.sum(axis=0)


@functools.cache
def _block_matrix() -> Float[np.ndarray, "K N"]:
    """The filters of a whole block as one matrix: a matrix product is the fast form everywhere."""
    taps = _filters()
    matrix = np.zeros((3 * _TRIPLES + len(taps) - 3, 2 * _TRIPLES), np.float32)
    for triple in range(_TRIPLES):
        matrix[3 * triple : 3 * triple + len(taps), 2 * triple : 2 * triple + 2] = taps
    return matrix


@jax.jit
def resample_24k_to_16k(pcm: Float[Array, "B S"]) -> Float[Array, "B N"]:
    """Resample by 2/3: output n is the signal at n / 16000 s, with silence around the recording.

    Args:
        pcm: 24 kHz.

    Returns:
        16 kHz, exactly N = ceil(2 S / 3) samples.
    """
    samples = pcm.shape[1]
    matrix = _block_matrix()
    step, overlap = 3 * _TRIPLES, matrix.shape[0] - 3 * _TRIPLES
    blocks = -(-samples // step)

    def resample_row(row: Float[Array, " S"]) -> Float[Array, " N"]:
        padded = jnp.pad(row, (_REACH, (blocks + 1) * step - _REACH - samples))
        padded = padded.reshape(blocks + 1, step)
        windows = jnp.concatenate([padded[:-1], padded[1:, :overlap]], axis=1)
        output = jnp.matmul(windows, matrix, precision=jax.lax.Precision.HIGHEST)
        return output.reshape(-1)[: -(-2 * samples // 3)]

    # Row by row: the windows are twice the audio, and a row's fit into a cache.
    return jax.lax.map(resample_row, pcm)
