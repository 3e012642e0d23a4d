"""Codec and language model joined: audio in, audio and text out, one pure function a frame.

Source: the flow of moshi/server.py, and of moshi/offline.py in NVIDIA/personaplex.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from helium_jax.model import Moshi
from helium_jax.sampling import Sampling
from helium_jax.state import MoshiState, init_state
from helium_jax.step import step
from layers_jax.functional import Params
from mimi_jax import Mimi, MimiState, decode_step, encode_step
from mimi_jax import init_state as init_codec_state


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DuplexState:
    """State of a batch of sessions."""

    mimi: MimiState
    lm: MoshiState


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DuplexFrame:
    """One frame of the agent."""

    pcm: jax.Array  # [B, S], silence where not valid
    text: jax.Array  # [B] int32 text token, -2 where not valid
    codes: jax.Array  # [B, Q] int32, -2 where not valid
    valid: jax.Array  # [B] bool


def init_duplex_state(
    mimi: Mimi,
    lm: Moshi,
    batch: int,
    *,
    seed: int = 0,
    row_ids: np.ndarray | None = None,
    sampling: Sampling | None = None,
) -> DuplexState:
    """State before the first frame; arguments as of `init_state`."""
    ids = None if row_ids is None else jnp.asarray(row_ids)
    brain = init_state(lm, batch, seed=seed, row_ids=ids, sampling=sampling)
    return DuplexState(mimi=init_codec_state(mimi, batch), lm=brain)


def duplex_step(
    mimi: Mimi,
    lm: Moshi,
    params: tuple[Params, Params],
    state: DuplexState,
    pcm: Float[Array, "B S"],
    exec_mask: Bool[Array, " B"],
    *,
    sampling: Sampling,
    conditions: Int[Array, "B *P C"] | None = None,
) -> tuple[DuplexState, DuplexFrame]:
    """Encode, think, decode: one frame of every running session.

    Moshi never sees the first frame of a session, so its codec does not remember it either: the
    second frame then starts the codec as the first of a recording would. PersonaPlex begins with
    prompts, after which every frame counts. A model without a voice of its own stays silent.
    """
    mimi_params, lm_params = params
    config = lm.config
    heard = exec_mask
    if config.timing != "personaplex":
        heard = exec_mask & (state.lm.offset > 0)
    codec, user = encode_step(mimi, mimi_params, state.mimi, pcm, heard)
    brain, out = step(
        lm,
        lm_params,
        state.lm,
        user,
        sampling=sampling,
        exec_mask=exec_mask,
        conditions=conditions,
    )
    codes = out.tokens[:, 1 : 1 + config.num_agent_codebooks]
    agent = jnp.zeros_like(pcm)
    if config.num_agent_codebooks:
        codec, agent = decode_step(mimi, mimi_params, codec, codes, out.valid)
    frame = DuplexFrame(pcm=agent, text=out.tokens[:, 0], codes=codes, valid=out.valid)
    return DuplexState(mimi=codec, lm=brain), frame
