"""The 16 kHz network of silero-vad 6.2.3 as a JAX function over batches of whole recordings.

Upstream runs one 32 ms hop at a time; only its LSTM needs the hop before. Here the STFT and the
convolutions run over all hops in parallel and the LSTM is one `lax.scan`.

`silero_vad_16k.safetensors` beside this file holds the published weights (309,633 parameters, MIT,
see SILERO_LICENSE), written by `python -m rewards.extract_silero`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from safetensors.numpy import load_file

SAMPLE_RATE = 16_000
HOP_SAMPLES = 512
CONTEXT_SAMPLES = 64

_WEIGHTS_FILE = Path(__file__).with_name("silero_vad_16k.safetensors")
_FFT_SAMPLES, _FFT_STRIDE, _FFT_REAL = 256, 128, 129
_STRIDES = (1, 2, 2, 1)  # of the four convolutions: 4 STFT columns -> 4 -> 2 -> 1 -> 1
# Hops a block: their activations stay in a core's cache, and memory does not grow with the audio.
_BLOCK_HOPS = 256

# By default a TPU multiplies in bfloat16: probabilities near a threshold would flip.
_matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def load_vad() -> dict[str, Any]:
    """Read the bundled weights.

    Returns:
        The parameter tree, float32: `stft.basis`, `encoder[i].{kernel, bias}` (tap, in, out),
        `lstm.{input, hidden, bias}` (gates: input, forget, cell, output), `output.{kernel, bias}`.
    """
    tensors = {name: jnp.asarray(value) for name, value in load_file(_WEIGHTS_FILE).items()}
    return {
        "stft": {"basis": tensors["stft.basis"]},
        "encoder": [
            {part: tensors[f"encoder.{layer}.{part}"] for part in ("kernel", "bias")}
            for layer in range(len(_STRIDES))
        ],
        "lstm": {part: tensors[f"lstm.{part}"] for part in ("input", "hidden", "bias")},
        "output": {part: tensors[f"output.{part}"] for part in ("kernel", "bias")},
    }


class VadState(NamedTuple):
    """What the network remembers of the audio before a block."""

    past: Float[Array, "B C"]  # the last 64 samples
    hidden: Float[Array, "B D"]
    cell: Float[Array, "B D"]


def initial_state(params: dict[str, Any], batch: int) -> VadState:
    """The state before the first sample: all zero."""
    dim = params["lstm"]["hidden"].shape[0]
    return VadState(
        jnp.zeros((batch, CONTEXT_SAMPLES)), jnp.zeros((batch, dim)), jnp.zeros((batch, dim))
    )


@jax.jit
def speech_probabilities(params: dict[str, Any], audio: Float[Array, "B S"]) -> Float[Array, "B F"]:
    """Probability of speech in every hop of 512 samples (32 ms).

    Causal: a hop's probability does not change when audio is appended, so rows may be padded with
    zeros to a common length. The state starts from zero in every row.

    Args:
        params: of `load_vad`.
        audio: 16 kHz, in [-1, 1].

    Returns:
        F = ceil(S / 512) probabilities a row; the last hop is completed with zeros.

    Raises:
        ValueError: no samples.
    """
    if audio.shape[1] == 0:
        raise ValueError("audio has 0 samples, expected at least 1")
    return stream_probabilities(params, initial_state(params, audio.shape[0]), audio)[1]


@jax.jit
def stream_probabilities(
    params: dict[str, Any], state: VadState, audio: Float[Array, "B S"]
) -> tuple[VadState, Float[Array, "B F"]]:
    """`speech_probabilities` of audio that comes in blocks, bounded in memory.

    Args:
        params: of `load_vad`.
        state: of `initial_state`, or of the block before.
        audio: 16 kHz, in [-1, 1]. Blocks before the last must hold whole hops of 512 samples;
            after another one the state is of no use.

    Returns:
        The state for the next block, and F = ceil(S / 512) probabilities a row.
    """
    batch, hops = audio.shape[0], -(-audio.shape[1] // HOP_SAMPLES)
    rows = jnp.pad(audio, ((0, 0), (0, hops * HOP_SAMPLES - audio.shape[1])))
    rows = jnp.concatenate([state.past, rows], axis=1)
    gates = _in_blocks(jax.vmap(partial(_encode_hop, params)), _hops(rows))
    gates = gates.reshape(batch, hops, -1).swapaxes(0, 1)  # [F, B, 4 * 128]

    def step(
        carry: tuple[Float[Array, "B D"], Float[Array, "B D"]], gate_input: Float[Array, "B G"]
    ) -> tuple[tuple[Float[Array, "B D"], Float[Array, "B D"]], Float[Array, "B D"]]:
        hidden, cell = carry
        total = gate_input + _matmul(hidden, params["lstm"]["hidden"])
        enter, forget, candidate, leave = jnp.split(total, 4, axis=-1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
        hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
        return (hidden, cell), hidden

    (last_hidden, cell), hidden = jax.lax.scan(step, (state.hidden, state.cell), gates, unroll=4)
    logits = _matmul(jax.nn.relu(hidden), params["output"]["kernel"]) + params["output"]["bias"]
    after = VadState(rows[:, rows.shape[1] - CONTEXT_SAMPLES :], last_hidden, cell)
    return after, jax.nn.sigmoid(logits).T


def _hops(rows: Float[Array, "B S"]) -> Float[Array, "N W"]:
    """Cut rows into hops with 64 samples of the past before and 64 reflected samples behind.

    A row is 64 samples of the past, then whole hops.
    """
    batch, count = rows.shape[0], (rows.shape[1] - CONTEXT_SAMPLES) // HOP_SAMPLES
    hops = rows[:, CONTEXT_SAMPLES:].reshape(batch * count, HOP_SAMPLES)
    past = rows[:, : count * HOP_SAMPLES].reshape(batch * count, HOP_SAMPLES)
    mirror = hops[:, -2 : -2 - CONTEXT_SAMPLES : -1]
    return jnp.concatenate([past[:, :CONTEXT_SAMPLES], hops, mirror], axis=1)


def _in_blocks(
    function: Callable[[Float[Array, "N W"]], Float[Array, "N G"]], hops: Float[Array, "M W"]
) -> Float[Array, "M G"]:
    """Apply a function of independent hops to equal blocks of them, one after the other."""
    count = hops.shape[0]
    blocks = -(-count // _BLOCK_HOPS)
    size = -(-count // blocks)
    padded = jnp.pad(hops, ((0, blocks * size - count), (0, 0)))
    output = jax.lax.map(function, padded.reshape(blocks, size, -1))
    return output.reshape(blocks * size, -1)[:count]


def _encode_hop(params: dict[str, Any], hop: Float[Array, " W"]) -> Float[Array, " G"]:
    """One hop to its share of the LSTM's gates: STFT magnitude, four convolutions, projection."""
    starts = range(0, hop.shape[0] - _FFT_SAMPLES + 1, _FFT_STRIDE)
    windows = jnp.stack([hop[start : start + _FFT_SAMPLES] for start in starts])
    spectrum = _matmul(windows, params["stft"]["basis"])
    # The basis leaves out the imaginary parts of DC and Nyquist: they are zero.
    imaginary = jnp.pad(spectrum[:, _FFT_REAL:], ((0, 0), (1, 1)))
    magnitude = jnp.sqrt(spectrum[:, :_FFT_REAL] ** 2 + imaginary**2)

    columns = list(magnitude)
    for layer, stride in zip(params["encoder"], _STRIDES, strict=True):
        columns = _convolve(layer, columns, stride)
    return _matmul(columns[0], params["lstm"]["input"]) + params["lstm"]["bias"]


def _convolve(
    layer: dict[str, Any], columns: list[Float[Array, " C"]], stride: int
) -> list[Float[Array, " D"]]:
    """ReLU of a 3-tap convolution with one column of zero padding on both sides.

    There are at most four columns, so many taps meet only padding: those are left out. A sum of a
    product per tap has shorter sums than one product over all taps, and is as fast: the
    probabilities are closer to those of exact arithmetic than onnxruntime's.
    """
    outputs = []
    for centre in range(0, len(columns), stride):
        first, last = max(centre - 1, 0), min(centre + 2, len(columns))
        taps = layer["kernel"][first - centre + 1 : last - centre + 1]
        products = [
            _matmul(column, tap) for column, tap in zip(columns[first:last], taps, strict=True)
        ]
        outputs.append(jax.nn.relu(sum(products[1:], products[0]) + layer["bias"]))
    return outputs
