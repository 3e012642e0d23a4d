"""Pure functions over the codec: one frame a call, or a whole signal.

Past the transformers' window the reference's streaming and non-streaming forms differ (the ring
overwrites before it attends), so a whole signal is by default a scan of the streaming step.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from layers_jax import bind, masked_update
from layers_jax.functional import Params
from mimi_jax.model import Mimi
from mimi_jax.state import MimiState

Mode = Literal["stream", "full"]


def init_state(mimi: Mimi, batch: int) -> MimiState:
    """State of `batch` sessions before their first frame."""
    return mimi.init_state(batch)


@jax.named_scope("encode")
def encode_step(
    mimi: Mimi,
    params: Params,
    state: MimiState,
    pcm: Float[Array, "B S"],
    mask: Bool[Array, " B"],
) -> tuple[MimiState, Int[Array, "B K"]]:
    """One frame of audio in, one frame of codes out.

    Args:
      mimi: the codec's definition (static).
      params: its parameters.
      state: sessions so far; donate it.
      pcm: S = `config.frame_samples` samples in [-1, 1] a row; NaN and infinite ones are silence.
      mask: rows to run; the codes of the others are -1 and their state is untouched.

    Raises:
      ValueError: S is not one frame.
    """
    check_frame(mimi, pcm)
    model = bind(mimi, params)
    latent, encoder = model.latent_step(_finite(pcm), state.encoder, mask)
    codes = model.quantizer.encode(latent, mimi.config.num_codebooks)[..., 0]
    codes = jnp.where(mask[:, None], codes, -1)
    return MimiState(encoder=encoder, decoder=state.decoder), codes


@jax.named_scope("decode")
def decode_step(
    mimi: Mimi,
    params: Params,
    state: MimiState,
    codes: Int[Array, "B K"],
    mask: Bool[Array, " B"],
) -> tuple[MimiState, Float[Array, "B S"]]:
    """One frame of codes in, one frame of audio out; rows outside `mask` are silent, untouched.

    Raises:
      ValueError: K is not 1 to n_q, or the codes are no integers.
    """
    _check_levels(mimi, codes)
    model = bind(mimi, params)
    pcm, decoder = model.synthesis_step(codes[..., None], state.decoder, mask)
    return MimiState(encoder=state.encoder, decoder=decoder), masked_update(
        mask, pcm, jnp.zeros_like(pcm)
    )


def encode(
    mimi: Mimi, params: Params, pcm: Float[Array, "B S"], *, mode: Mode = "stream"
) -> Int[Array, "B K T"]:
    """Codes of a whole signal, padded on the right with silence to whole frames.

    Args:
      mimi: the codec's definition (static).
      params: its parameters.
      pcm: samples in [-1, 1].
      mode: "stream" gives the codes of a live session; "full" attends to the whole window at once,
        as the reference does offline.
    """
    frame = mimi.config.frame_samples
    padded = jnp.pad(pcm, ((0, 0), (0, -pcm.shape[1] % frame)))
    if mode == "full":
        model = bind(mimi, params)
        latent = model.latent(_finite(padded))
        return model.quantizer.encode(latent, mimi.config.num_codebooks)
    mask = jnp.ones(pcm.shape[0], bool)
    frames = padded.reshape(pcm.shape[0], -1, frame).swapaxes(0, 1)

    def body(state: MimiState, samples: jax.Array) -> tuple[MimiState, jax.Array]:
        return encode_step(mimi, params, state, samples, mask)

    _, codes = jax.lax.scan(body, mimi.init_state(pcm.shape[0]), frames)
    return codes.transpose(1, 2, 0)


def decode(
    mimi: Mimi, params: Params, codes: Int[Array, "B K T"], *, mode: Mode = "stream"
) -> Float[Array, "B S"]:
    """Audio of T frames of codes; `mode` as in `encode`.

    Raises:
      ValueError: a code is outside the codebook (checked where the codes are concrete: inside a
        trace such a code contributes nothing).
    """
    _check_codes(mimi, codes)
    if mode == "full":
        return bind(mimi, params).synthesis(codes)
    mask = jnp.ones(codes.shape[0], bool)

    def body(state: MimiState, frame: jax.Array) -> tuple[MimiState, jax.Array]:
        return decode_step(mimi, params, state, frame, mask)

    _, pcm = jax.lax.scan(body, mimi.init_state(codes.shape[0]), codes.transpose(2, 0, 1))
    return pcm.swapaxes(0, 1).reshape(codes.shape[0], -1)


def check_frame(mimi: Mimi, pcm: jax.Array | np.ndarray) -> None:
    """Raises ValueError unless `pcm` is one frame of floats a row."""
    if not jnp.issubdtype(pcm.dtype, jnp.floating):
        raise ValueError(
            f"got {pcm.dtype} samples, expected floats in [-1, 1]; divide 16-bit ones by 32768"
        )
    if pcm.shape[1] != mimi.config.frame_samples:
        raise ValueError(
            f"a streaming call got {pcm.shape[1]} samples, expected one frame of "
            f"{mimi.config.frame_samples}; buffer the input to whole frames"
        )


def _finite(pcm: jax.Array) -> jax.Array:
    """One NaN would stay in a session's attention cache for ten seconds."""
    return jnp.where(jnp.isfinite(pcm), pcm, 0)


def _check_levels(mimi: Mimi, codes: jax.Array) -> None:
    most = mimi.config.quantizer.n_q
    if not 1 <= codes.shape[1] <= most or not jnp.issubdtype(codes.dtype, jnp.integer):
        raise ValueError(
            f"got codes {codes.dtype}{list(codes.shape)}, expected integers [B, K, ...] with 1 to "
            f"{most} codebooks K; drop the others"
        )


def _check_codes(mimi: Mimi, codes: jax.Array) -> None:
    _check_levels(mimi, codes)
    if isinstance(codes, jax.core.Tracer) or codes.size == 0:
        return
    low, high = int(np.min(codes)), int(np.max(codes))
    if low < 0 or high >= mimi.config.quantizer.bins:
        raise ValueError(
            f"codes span {low} to {high}, expected 0 to {mimi.config.quantizer.bins - 1}; "
            "drop frames that are not ready before decoding"
        )
