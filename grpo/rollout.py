"""Rollouts: G conversations with one recorded user, as a loop of the same step that serves live.

    call c:  user frame c - 1 ─ mimi encode, once ─▶ codes, tiled G times ─▶ helium step ─▶ tokens
             tokens of agent frame c - max_delay ─▶ mimi decode ─▶ agent pcm

The whole loop is one program for one device and one group (`grpo.mesh` maps it) and it ends with
the group's own last frame: padding costs memory, not time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from grpo.config import SamplingConfig
from helium_jax import Moshi, MoshiState, Sampler, Sampling, init_state, step
from layers_jax.functional import Params
from mimi_jax import Mimi, MimiState, decode_step, encode_step
from mimi_jax import init_state as init_codec_state

UNKNOWN = -1
"""Stands for text and codes of frames after the end of a rollout."""


class Trajectory(NamedTuple):
    """G rollouts of T frames with one user; training frame t covers [0.08 t, 0.08 (t + 1)) s.

    Frames at and after the end of the rollout hold `UNKNOWN` tokens, log-prob 0 and silence, so
    nothing depends on how far a group was padded.
    """

    text: Array  # [G, T] int32
    agent_codes: Array  # [G, Q, T] int32, the model's own codebooks
    user_codes: Array  # [U, T] int32, what the model heard: the same in every rollout
    text_logprob: Array  # [G, T] f32, of `text` under the distribution it was drawn from
    pcm: Array  # [G, T * samples a frame] f32, the agent's speech

    def streams(self) -> Array:
        """All streams [G, 1 + Q + U, T] in the order of the teacher-forced forward."""
        shared = jnp.broadcast_to(self.user_codes, (self.text.shape[0], *self.user_codes.shape))
        return jnp.concatenate([self.text[:, None], self.agent_codes, shared], axis=1)


def sampling_of(config: SamplingConfig) -> Sampling:
    """The step's samplers for the configured temperatures."""
    return Sampling(
        text=Sampler(temperature=config.text_temperature),
        audio=Sampler(temperature=config.audio_temperature, top_k=config.audio_top_k),
    )


def rollout(
    lm: Moshi,
    mimi: Mimi,
    params: Params,
    mimi_params: Params,
    pcm: Float[Array, " S"],
    num_frames: Int[Array, ""],
    row_ids: Int[Array, " G"],
    *,
    sampling: Sampling,
    seed: int,
) -> Trajectory:
    """G rollouts with one user.

    Args:
        lm: the model's definition (static), layers listed.
        mimi: the codec's definition (static).
        params: parameters of the model.
        mimi_params: parameters of the codec.
        pcm: the user's audio at 24 kHz, silence prefix included, padded with zeros to T frames. T
            is static: another length is another executable.
        num_frames: frames of it that count, at most T; the loop runs that long.
        row_ids: a number a rollout, unique in the run.
        sampling: how tokens are drawn (static).
        seed: of the run (static).

    Raises:
        ValueError: S is not a whole number of frames.
    """
    config, frame_samples = lm.config, mimi.config.frame_samples
    if pcm.shape[0] % frame_samples:
        raise ValueError(
            f"user audio has {pcm.shape[0]} samples, expected a multiple of {frame_samples} (one "
            "frame); pad it with zeros"
        )
    frames = pcm.reshape(-1, 1, frame_samples)
    length, group, delay = frames.shape[0], row_ids.shape[0], config.max_delay
    heard, spoken = config.num_user_codebooks, mimi.config.num_codebooks

    def call(c: Array, carry: tuple[_States, Trajectory]) -> tuple[_States, Trajectory]:
        states, so_far = carry
        # User frame t is given at call t + 1: the model hears nothing at call 0, nor after the end.
        t = jnp.maximum(c - 1, 0)
        listening = ((c > 0) & (c <= num_frames))[None]
        ear, user = encode_step(mimi, mimi_params, states.ear, frames[t], listening)
        user = user[0, :heard]
        tiled = jnp.broadcast_to(user, (group, heard))
        brain, output = step(lm, params, states.brain, tiled, sampling=sampling)
        # Output of call c is frame c - delay; what earlier calls write is overwritten.
        mouth, sound = decode_step(
            mimi, mimi_params, states.mouth, output.tokens[:, 1 : 1 + spoken], output.valid
        )
        out = jnp.maximum(c - delay, 0)
        return _States(ear, brain, mouth), Trajectory(
            text=so_far.text.at[:, out].set(output.tokens[:, 0]),
            agent_codes=so_far.agent_codes.at[:, :, out].set(output.tokens[:, 1:]),
            user_codes=so_far.user_codes.at[:, t].set(user),
            # The text token of frame c is drawn at call c.
            text_logprob=so_far.text_logprob.at[:, c].set(output.log_probs[:, 0]),
            pcm=so_far.pcm.at[:, out].set(sound),
        )

    fresh = _States(
        ear=init_codec_state(mimi, 1),
        brain=init_state(lm, group, seed=seed, row_ids=row_ids, capacity=length + delay),
        mouth=init_codec_state(mimi, group),
    )
    room = length + delay
    empty = Trajectory(
        text=jnp.full((group, length), UNKNOWN),
        agent_codes=jnp.full((group, config.dep_q, length), UNKNOWN),
        user_codes=jnp.full((heard, room), UNKNOWN),
        text_logprob=jnp.zeros((group, room)),
        pcm=jnp.zeros((group, length, frame_samples)),
    )
    _, full = jax.lax.fori_loop(0, num_frames + delay, call, (fresh, empty))
    inside = jnp.arange(length) < num_frames
    return full._replace(
        user_codes=full.user_codes[:, :length],
        text_logprob=jnp.where(inside, full.text_logprob[:, :length], 0.0),
        pcm=full.pcm.reshape(group, -1),
    )


class _States(NamedTuple):
    ear: MimiState  # batch 1: all rollouts hear the same user
    brain: MoshiState
    mouth: MimiState
