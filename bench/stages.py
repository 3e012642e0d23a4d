"""The frame step of a model on random weights, whole and in its stages, ready to be timed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bench.presets import Preset
from bench.weights import random_weights
from convert import load_mimi, load_moshi
from helium_jax import Moshi, Sampling
from helium_jax.duplex import DuplexFrame, DuplexState, duplex_step, init_duplex_state
from layers_jax import Precision, bind
from layers_jax.functional import Params, abstract, split
from mimi_jax import Mimi, decode_step, encode_step

__all__ = ["STAGES", "Model", "frame_program", "loaded", "made", "stage_calls", "started"]

STAGES = ("encode", "temporal", "depth", "sampling", "decode")


@dataclass(frozen=True)
class Model:
    """Definitions and parameters of a codec and a language model."""

    mimi: Mimi
    lm: Moshi
    params: tuple[Params, Params]  # codec, language model

    @property
    def frame_s(self) -> float:
        """Duration of a frame: what a step has time for."""
        return self.mimi.config.frame_samples / self.mimi.config.sample_rate


def made(preset: Preset, precision: Precision) -> Model:
    """The model with random weights, made on the default device one leaf at a time."""
    mimi = abstract(lambda: Mimi(preset.mimi, rngs=nnx.Rngs(0)))
    lm = abstract(lambda: Moshi(preset.lm, precision=precision, rngs=nnx.Rngs(0)))
    return Model(mimi, lm, (random_weights(split(mimi)[1]), random_weights(split(lm)[1])))


def loaded(folder: str | Path, precision: Precision) -> Model:
    """The model of a checkpoint folder.

    Raises:
      ConversionError: the folder cannot be used.
    """
    mimi, mimi_params = load_mimi(folder)
    lm, lm_params = load_moshi(folder, precision=precision)
    return Model(mimi, lm, (mimi_params, lm_params))


def started(model: Model, batch: int, fill: float) -> DuplexState:
    """Sessions that have talked for a share `fill` of the language model's context."""
    position = round(fill * model.lm.config.context)

    @jax.jit
    def begin() -> DuplexState:
        state = init_duplex_state(model.mimi, model.lm, batch)
        return replace(state, lm=replace(state.lm, offset=state.lm.offset + position))

    return begin()


def frame_program(model: Model, sampling: Sampling) -> Any:
    """The whole frame as a jitted function of (params, state, pcm [B, S], mask [B])."""

    def frame(
        params: tuple[Params, Params], state: DuplexState, pcm: jax.Array, mask: jax.Array
    ) -> tuple[DuplexState, DuplexFrame]:
        return duplex_step(model.mimi, model.lm, params, state, pcm, mask, sampling=sampling)

    return jax.jit(frame, donate_argnums=1)


def stage_calls(
    model: Model, batch: int, fill: float, sampling: Sampling
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each stage of the frame as a program of its own, compiled, with inputs as it gets there.

    Together they do the work of the frame, but not in one program: their times do not add up to it.

    Yields:
      Name of the stage, and what starts it once.
    """
    lm, mimi, config = model.lm, model.mimi, model.lm.config
    steps = min(config.dep_q, config.num_agent_codebooks)
    mask = jnp.ones(batch, bool)
    pcm = jnp.zeros((batch, mimi.config.frame_samples), jnp.float32)
    fed = jnp.zeros((batch, config.num_streams), jnp.int32)
    codes = jnp.zeros((batch, mimi.config.num_codebooks), jnp.int32)
    hidden = jnp.ones((batch, config.dim), lm.precision.compute)
    text = jnp.zeros((batch, config.num_text_logits), lm.precision.logits)
    audio = jnp.zeros((steps, batch, config.card), lm.precision.logits)

    def encode(params: Any, state: DuplexState) -> Any:
        codec, found = encode_step(mimi, params[0], state.mimi, pcm, mask)
        return replace(state, mimi=codec), found

    def temporal(params: Any, state: DuplexState) -> Any:
        module, before = bind(lm, params[1]), state.lm
        out, caches = module.hidden_step(fed, before.caches, before.offset, mask)
        return replace(state, lm=replace(before, caches=caches)), module.text_logits(out)

    def depth(params: Any, state: DuplexState) -> Any:
        chosen: list[jax.Array] = []

        def choose(k: int, logits: jax.Array) -> jax.Array:
            chosen.append(jnp.argmax(logits, axis=-1).astype(jnp.int32))
            return chosen[-1]

        transformer = bind(lm, params[1]).depth
        assert transformer is not None
        transformer.unroll(hidden, fed[:, 0], choose, steps, config.last_codebook_sees_text)
        return state, chosen

    def sample(params: Any, state: DuplexState) -> Any:
        text_noise, audio_noise = sampling.noise(config, state.lm.keys, state.lm.offset)
        drawn = [sampling.text(text, text_noise)]
        for k in range(steps):
            noise = None if audio_noise is None else audio_noise[:, k]
            drawn.append(sampling.audio(audio[k], noise))
        return state, drawn

    def decode(params: Any, state: DuplexState) -> Any:
        codec, said = decode_step(mimi, params[0], state.mimi, codes, mask)
        return replace(state, mimi=codec), said

    for name, function in zip(STAGES, (encode, temporal, depth, sample, decode), strict=True):
        box = [started(model, batch, fill)]
        program = jax.jit(function, donate_argnums=1).lower(model.params, box[0]).compile()

        def call(box: list = box, program: Any = program) -> Any:
            box[0], out = program(model.params, box[0])
            return out

        yield name, call
