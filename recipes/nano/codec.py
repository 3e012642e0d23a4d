"""Trains the nano codec on the bank of recordings.

    python -m recipes.nano.codec DST

One seed, one command. The codec first learns without its quantizer; then k-means over its own
latents starts the codebooks, and they follow it from there. The semantic codebook must also tell
which phones are said and how the turn goes on, the stand-in for Mimi's distillation of WavLM. The
run may be killed at any time: the same command goes on after the last saved update.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx
from jaxtyping import Array, Float
from safetensors.numpy import load_file
from tyro.conf import Positional

from convert import export_mimi, params_from_tensors
from layers_jax import TransformerConfig, bind, split
from layers_jax.command import run_command
from layers_jax.functional import Params, abstract
from mimi_jax import Mimi, MimiConfig, QuantizerConfig, SeanetConfig
from moshi_jax.nano.bank import read_bank
from recipes.nano.codebooks import follow, quantize, start_codebooks
from recipes.nano.codec_loss import codec_loss, mean_magnitude
from recipes.nano.tracks import LABELS_A_FRAME, PROSODY, Mix, TrackMaker, Tracks
from recipes.nano.training import (
    STATE_NAME,
    TrainState,
    make_optimizer,
    run_updates,
    write_json,
)

CODEC_NAME, CODEC_CONFIG_NAME = "tokenizer-nano-mimi.safetensors", "mimi_config.json"


@dataclass(frozen=True, kw_only=True)
class CodecRecipe:
    """What is trained, and for how long."""

    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="DST")]
    """Gets the codec's config and weights and the training state; made if it is not there."""
    steps: int = 4000
    """Updates."""
    unquantized_steps: int = 500
    """Updates before the codebooks are started."""
    learning_rate: float = 1.5e-3
    """Of Adam at its highest."""
    batch: int = 4
    """Tracks an update."""
    frames: int = 24
    """Frames of 80 ms of a track: a codec trained on shorter ones is worse on long streams."""
    save_every: int = 250
    """Updates between two savings."""
    stop_after_s: float | None = None
    """Save and stop after so many seconds; the same command goes on."""
    seed: int = 0
    """Of parameters, tracks, and dropped codebooks."""

    def run(self) -> None:
        """Trains, prints progress, writes the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        train(self)


def nano_mimi() -> MimiConfig:
    """Kyutai's codec with a 40th of its parameters and four codebooks of 256 entries."""
    return MimiConfig(
        seanet=SeanetConfig(dimension=128, n_filters=12),
        quantizer=QuantizerConfig(dimension=32, n_q=4, bins=256),
        transformer=TransformerConfig(
            dim=128,
            num_heads=4,
            num_layers=2,
            hidden=384,
            context=24,
            norm="layer",
            mlp="gelu",
            layer_scale=0.1,
        ),
        num_codebooks=4,
    )


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def codec_step(
    mimi: Mimi,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    scale: Float[Array, " F"],
    tracks: Tracks,
    quantized: Float[Array, ""],
    key: Array,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One update of the codec and one move of its codebooks.

    Args:
      mimi: the codec's definition (static).
      optimizer: static.
      state: donated; its params are {"mimi": the codec's, "heads": those that read the labels}.
      scale: see `codec_loss`.
      tracks: what is heard.
      quantized: 0 before the codebooks are started; then the share of rows that is quantized.
      key: of the rows that pass unquantized and the levels that are dropped.
    """
    keys = jax.random.split(key, 4)
    batch, acoustic = tracks.pcm.shape[0], mimi.config.quantizer.n_q - 1
    on = jax.random.uniform(keys[0], (batch,)) < quantized
    fewer = jax.random.randint(keys[1], (batch,), 0, acoustic + 1)
    levels = jnp.where(jax.random.uniform(keys[2], (batch,)) < 0.2, fewer, acoustic)

    def loss(params: Any) -> tuple[jax.Array, tuple[Any, Any]]:
        model = bind(mimi, params["mimi"])
        codes = quantize(model.quantizer, model.latent(tracks.pcm), on, levels)
        columns, _ = model.upsample(codes.latent)
        decoded, _ = model.decoder(model.decoder_transformer(columns))
        terms = codec_loss(tracks.pcm, decoded[..., 0], tracks.agent.astype(jnp.float32), scale)
        labels = {"phones": tracks.phones, "prosody": tracks.prosody}
        entropies = {
            name: _label_loss(codes.semantic, params["heads"][name], labels[name])
            for name in labels
        }
        read = 0.1 * entropies["phones"] + 0.1 * entropies["prosody"]
        total = terms.total() + 0.25 * codes.commitment + read
        return total, (codes.chains, {"loss": total, **terms._asdict(), **entropies})

    gradients, (chains, metrics) = jax.grad(loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradients, state.optimizer, state.params)
    # Codebooks have no gradient, so Adam leaves them where they are.
    params: Any = optax.apply_updates(state.params, updates)
    moved = follow(params["mimi"]["quantizer"], chains, keys[3])
    kept = jax.tree.map(
        lambda new, old: jnp.where(quantized > 0, new, old), moved, params["mimi"]["quantizer"]
    )
    params = {**params, "mimi": {**params["mimi"], "quantizer": kept}}
    return TrainState(params, opt_state), metrics


def _label_loss(semantic: jax.Array, head: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of the labels of each frame, read from its semantic code alone."""
    batch, frames, _ = semantic.shape
    logits = (semantic @ head).reshape(batch, frames * LABELS_A_FRAME, -1)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def train(recipe: CodecRecipe) -> Params:
    """Runs the recipe; returns the codec's parameters."""
    config, maker = nano_mimi(), TrackMaker(read_bank())
    mimi = abstract(lambda: Mimi(config, rngs=nnx.Rngs(0)))
    optimizer = make_optimizer(recipe.learning_rate, recipe.steps)
    params = split(Mimi(config, rngs=nnx.Rngs(recipe.seed)))[1]
    width = config.quantizer.dimension
    sizes = {"phones": len(maker.phone_ids) + 1, "prosody": len(PROSODY)}
    heads = {name: jnp.zeros((width, LABELS_A_FRAME * size)) for name, size in sizes.items()}
    whole = jax.tree.map(jnp.copy, {"mimi": params, "heads": heads})  # donated: no buffer twice
    print(f"{sum(leaf.size for leaf in jax.tree.leaves(params))} parameters", flush=True)
    scale = jnp.asarray(agent_scale(maker))

    def tracks_of(step: int, batch: int) -> Tracks:
        rng = np.random.default_rng([recipe.seed, step])
        return maker.draw(rng, Mix(), batch=batch, frames=recipe.frames)

    def update(state: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        first = recipe.unquantized_steps + 1
        if step == first:
            quantizer = _start(mimi, state.params["mimi"], tracks_of(0, 128), recipe.seed)
            whole = {**state.params["mimi"], "quantizer": quantizer}
            state = state._replace(params={**state.params, "mimi": whole})
        share, key = 0.9 if step >= first else 0.0, jax.random.key(step)
        tracks = tracks_of(step, recipe.batch)
        return codec_step(mimi, optimizer, state, scale, tracks, jnp.float32(share), key)

    state = run_updates(
        recipe.folder / STATE_NAME,
        TrainState(whole, optimizer.init(whole)),
        steps=recipe.steps,
        save_every=recipe.save_every,
        update=update,
        saved=lambda state, step: save_codec(recipe.folder, config, state.params["mimi"]),
        stop_after_s=recipe.stop_after_s,
    )
    return state.params["mimi"]


def agent_scale(maker: TrackMaker) -> Float[np.ndarray, " F"]:
    """Scale of the complex term, from the agent's training lines."""
    tracks = maker.draw(
        np.random.default_rng(0),
        Mix(agent=1.0, silent=0.0, off_grid=0.0, gap_s=(0.0, 0.0)),
        batch=4,
        frames=125,
    )
    return mean_magnitude(tracks.pcm.reshape(-1))


def save_codec(folder: Path, config: MimiConfig, params: Params) -> None:
    """Writes weights and config under the names of the nano checkpoint."""
    export_mimi(folder / CODEC_NAME, config, params, dtypes="float32")
    write_json(folder / CODEC_CONFIG_NAME, config.to_dict())


def load_codec(folder: Path) -> tuple[Mimi, Params]:
    """The codec of a folder that need not have a language model."""
    values = json.loads((folder / CODEC_CONFIG_NAME).read_text(encoding="utf-8"))
    config = MimiConfig.from_dict(values, num_codebooks=values["quantizer"]["n_q"])
    mimi = abstract(lambda: Mimi(config, rngs=nnx.Rngs(0)))
    return mimi, params_from_tensors(config, load_file(folder / CODEC_NAME))


def _start(mimi: Mimi, params: Params, tracks: Tracks, seed: int) -> Params:
    latent = jax.jit(lambda p, pcm: bind(mimi, p).latent(pcm))
    rows = [np.asarray(latent(params, rows)) for rows in np.split(tracks.pcm, 16)]
    latents = np.concatenate(rows).reshape(-1, rows[0].shape[-1])
    return start_codebooks(params["quantizer"], latents, np.random.default_rng(seed))


def main(argv: Sequence[str] | None = None) -> int:
    """Trains with the recipe given by flags; returns 0."""
    tyro.cli(CodecRecipe, args=argv, description=__doc__).run()
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m recipes.nano.codec", main))
