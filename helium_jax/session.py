"""Codec and language model joined: audio in, audio and text out, one executable a frame.

Source: the flow of moshi/server.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from helium_jax.model import Moshi
from helium_jax.sampling import Sampling
from helium_jax.state import MoshiState, init_state
from helium_jax.step import step
from layers_jax import reset_rows
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


def init_duplex_state(mimi: Mimi, lm: Moshi, batch: int, *, seed: int = 0) -> DuplexState:
    """State before the first frame."""
    return DuplexState(mimi=init_codec_state(mimi, batch), lm=init_state(lm, batch, seed=seed))


def duplex_step(
    mimi: Mimi,
    lm: Moshi,
    params: tuple[Params, Params],
    state: DuplexState,
    pcm: Float[Array, "B S"],
    exec_mask: Bool[Array, " B"],
    *,
    sampling: Sampling,
) -> tuple[DuplexState, DuplexFrame]:
    """Encode, think, decode: one frame of every running session.

    The model never sees the first frame of a session, so the codec does not remember it either: the
    second frame then starts the codec as the first of a recording would.
    """
    mimi_params, lm_params = params
    seen = exec_mask & (state.lm.offset > 0)
    codec, user = encode_step(mimi, mimi_params, state.mimi, pcm, seen)
    moshi, out = step(lm, lm_params, state.lm, user, sampling=sampling, exec_mask=exec_mask)
    codes = out.tokens[:, 1 : 1 + mimi.config.num_codebooks]
    codec, agent = decode_step(mimi, mimi_params, codec, codes, out.valid)
    frame = DuplexFrame(pcm=agent, text=out.tokens[:, 0], codes=codes, valid=out.valid)
    return DuplexState(mimi=codec, lm=moshi), frame


class DuplexSession:
    """A batch of live conversations.

    The agent's frame t comes out of call t + `delay_frames`; the user's audio of the very first
    call is not heard (the model has no place for it).

    Args:
      mimi: codec definition.
      mimi_params: its parameters.
      lm: model definition.
      lm_params: its parameters, layers listed.
      batch: sessions B that run side by side, each on its own clock.
      sampling: how tokens are drawn.
      seed: of all draws.
    """

    def __init__(
        self,
        mimi: Mimi,
        mimi_params: Params,
        lm: Moshi,
        lm_params: Params,
        *,
        batch: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ):
        needed = lm.config.num_user_codebooks
        if mimi.config.num_codebooks != needed or mimi.config.quantizer.bins != lm.config.card:
            raise ValueError(
                f"codec gives {mimi.config.num_codebooks} codebooks of "
                f"{mimi.config.quantizer.bins} entries, expected {needed} of {lm.config.card}; "
                "use the codec that was published with the model"
            )
        self.mimi, self.lm, self.batch = mimi, lm, batch
        self._params = jax.device_put((mimi_params, lm_params))
        self._fresh = jax.jit(lambda: init_duplex_state(mimi, lm, batch, seed=seed))
        self._state = self._fresh()

        def run(
            params: tuple[Params, Params], state: DuplexState, pcm: jax.Array, mask: jax.Array
        ) -> tuple[DuplexState, DuplexFrame]:
            return duplex_step(mimi, lm, params, state, pcm, mask, sampling=sampling or Sampling())

        self._run = jax.jit(run, donate_argnums=1)
        self._compiled: Callable | None = None
        self._everyone = jnp.ones(batch, bool)

    @property
    def frame_samples(self) -> int:
        """Samples S of a frame."""
        return self.mimi.config.frame_samples

    @property
    def delay_frames(self) -> int:
        """Calls after which a session's first frame comes out."""
        return self.lm.config.max_delay

    def warmup(self) -> None:
        """Compiles the frame step; the first `step` does it otherwise. Sessions are untouched."""
        if self._compiled is None:
            pcm = jax.ShapeDtypeStruct((self.batch, self.frame_samples), jnp.float32)
            lowered = self._run.lower(self._params, self._state, pcm, self._everyone)
            self._compiled = lowered.compile()

    def step(
        self,
        pcm: Float[np.ndarray | Array, "B S"],
        exec_mask: Bool[np.ndarray | Array, " B"] | None = None,
    ) -> DuplexFrame:
        """One frame of audio of each user in, one frame of each agent out.

        Args:
          pcm: f32 samples in [-1, 1].
          exec_mask: sessions that have a frame, all by default; the others are untouched.

        Raises:
          ValueError: `pcm` has not the shape [B, S].
        """
        expected = (self.batch, self.frame_samples)
        if pcm.shape != expected:
            raise ValueError(
                f"a frame has shape {pcm.shape}, expected {expected} (sessions, samples at "
                f"{self.mimi.config.sample_rate} Hz); buffer the input to whole frames"
            )
        self.warmup()
        assert self._compiled is not None
        mask = self._everyone if exec_mask is None else jnp.asarray(exec_mask)
        pcm = jnp.asarray(pcm, jnp.float32)
        self._state, frame = self._compiled(self._params, self._state, pcm, mask)
        return frame

    def reset(self, rows: Bool[np.ndarray | Array, " B"] | None = None) -> None:
        """Starts sessions anew, all by default; nothing of their past remains."""
        if rows is None:
            self._state = self._fresh()
        else:
            self._state = _reset(jnp.asarray(rows), self._fresh(), self._state)


_reset = jax.jit(reset_rows, donate_argnums=2)
