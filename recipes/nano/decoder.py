"""Trains the decoder of a nano codec further; its codes stay what they are.

    python -m recipes.nano.decoder CODEC DST

A language model that knows the codes stays valid. As nothing before the codes changes, tracks are
encoded once and every update costs the decoder only. The run may be killed at any time: the same
command goes on after the last saved update.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jaxtyping import Array, Float, Float32, Int, Int32
from tyro.conf import Positional

from layers_jax import bind
from layers_jax.command import run_command
from layers_jax.functional import Params
from mimi_jax import Mimi, encode
from moshi_jax.nano.bank import read_bank
from recipes.nano.codec import agent_scale, load_codec, save_codec
from recipes.nano.codec_loss import codec_loss
from recipes.nano.tracks import FRAME, Mix, TrackMaker
from recipes.nano.training import STATE_NAME, TrainState, make_optimizer, run_updates

ENCODED_AT_ONCE = 4
DECODER_PARTS = ("upsample", "decoder_transformer", "decoder")


@dataclass(frozen=True, kw_only=True)
class DecoderRecipe:
    """What is trained, and for how long."""

    start: Annotated[Positional[Path], tyro.conf.arg(metavar="CODEC")]
    """Codec folder whose codes are kept."""
    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="DST")]
    """Gets the codec with the new decoder and the training state; made if it is not there."""
    steps: int = 8000
    """Updates."""
    learning_rate: float = 1e-3
    """Of Adam at its highest."""
    batch: int = 4
    """Chunks an update."""
    frames: int = 24
    """Frames of 80 ms of a chunk."""
    tracks: int = 64
    """Tracks that are encoded before the first update; chunks are cut out of them."""
    track_frames: int = 500
    """Frames of a track."""
    agent: float = 0.85
    """Share of tracks in the agent's voice, the one that is decoded in conversations."""
    save_every: int = 500
    """Updates between two savings."""
    stop_after_s: float | None = None
    """Save and stop after so many seconds; the same command goes on."""
    seed: int = 0
    """Of tracks and chunks."""

    def run(self) -> None:
        """Trains, prints progress, writes the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        train(self)


class Chunks(NamedTuple):
    """A batch of pieces of encoded tracks."""

    codes: Int32[np.ndarray, "B K T"]
    pcm: Float32[np.ndarray, "B S"]
    agent: np.ndarray  # bool [B]


def decoder_params(params: Params) -> dict[str, Any]:
    """The parameters that decide on the sound of codes, and on no code."""
    outputs = {name: half["output_projection"] for name, half in params["quantizer"].items()}
    return {**{name: params[name] for name in DECODER_PARTS}, "outputs": outputs}


def with_decoder(params: Params, decoder: Params) -> dict[str, Any]:
    """All parameters, those of `decoder_params` replaced."""
    halves = {
        name: {**half, "output_projection": decoder["outputs"][name]}
        for name, half in params["quantizer"].items()
    }
    return {**params, **{name: decoder[name] for name in DECODER_PARTS}, "quantizer": halves}


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def decoder_step(
    mimi: Mimi,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    fixed: Params,
    scale: Float[Array, " F"],
    chunks: Chunks,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One update.

    Args:
      mimi: the codec's definition (static).
      optimizer: static.
      state: donated; its params are those of `decoder_params`.
      fixed: all parameters of the codec.
      scale: see `codec_loss`.
      chunks: codes and what they should sound like.
    """

    def loss(decoder: Params) -> tuple[jax.Array, Any]:
        decoded = bind(mimi, with_decoder(fixed, decoder)).synthesis(chunks.codes)
        terms = codec_loss(chunks.pcm, decoded, chunks.agent.astype(jnp.float32), scale)
        total = terms.total()
        return total, {"loss": total, **terms._asdict()}

    gradients, metrics = jax.grad(loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradients, state.optimizer, state.params)
    return TrainState(optax.apply_updates(state.params, updates), opt_state), metrics


def train(recipe: DecoderRecipe) -> Params:
    """Runs the recipe; returns the codec's parameters."""
    mimi, fixed = load_codec(recipe.start)
    maker = TrackMaker(read_bank())
    scale = jnp.asarray(agent_scale(maker))
    whole = encoded_tracks(recipe, mimi, fixed, maker)
    optimizer = make_optimizer(recipe.learning_rate, recipe.steps)
    decoder = jax.tree.map(jnp.copy, decoder_params(fixed))  # donated: no buffer twice

    def update(state: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        rng = np.random.default_rng([recipe.seed, step])
        chunks = cut(whole, rng, batch=recipe.batch, frames=recipe.frames)
        return decoder_step(mimi, optimizer, state, fixed, scale, chunks)

    def saved(state: TrainState, step: int) -> None:
        save_codec(recipe.folder, mimi.config, with_decoder(fixed, state.params))

    state = run_updates(
        recipe.folder / STATE_NAME,
        TrainState(decoder, optimizer.init(decoder)),
        steps=recipe.steps,
        save_every=recipe.save_every,
        update=update,
        saved=saved,
        stop_after_s=recipe.stop_after_s,
    )
    return with_decoder(fixed, state.params)


def encoded_tracks(recipe: DecoderRecipe, mimi: Mimi, params: Params, maker: TrackMaker) -> Chunks:
    """Tracks with their codes: those of a stream that began with the track."""
    rng = np.random.default_rng([recipe.seed, 0])
    to_codes = jax.jit(partial(encode, mimi))
    codes, pcm, agent = [], [], []
    for _ in range(-(-recipe.tracks // ENCODED_AT_ONCE)):
        drawn = maker.draw(
            rng, Mix(agent=recipe.agent), batch=ENCODED_AT_ONCE, frames=recipe.track_frames
        )
        codes.append(np.asarray(to_codes(params, drawn.pcm)))
        pcm.append(drawn.pcm)
        agent.append(drawn.agent)
    return Chunks(*(np.concatenate(parts)[: recipe.tracks] for parts in (codes, pcm, agent)))


def cut(tracks: Chunks, rng: np.random.Generator, *, batch: int, frames: int) -> Chunks:
    """Random pieces of random tracks."""
    rows = rng.integers(len(tracks.agent), size=batch)
    starts: Int[np.ndarray, " B"] = rng.integers(tracks.codes.shape[2] - frames + 1, size=batch)
    pairs = list(zip(rows, starts, strict=True))
    return Chunks(
        codes=np.stack([tracks.codes[row, :, at : at + frames] for row, at in pairs]),
        pcm=np.stack([tracks.pcm[row, at * FRAME : (at + frames) * FRAME] for row, at in pairs]),
        agent=tracks.agent[rows],
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Trains with the recipe given by flags; returns 0."""
    tyro.cli(DecoderRecipe, args=argv, description=__doc__).run()
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m recipes.nano.decoder", main))
