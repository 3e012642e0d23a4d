"""Trains the codec of the tiny checkpoint on the sample conversation.

    python -m recipes.tiny.codec runs/tiny-codec

One seed, one command. The codec first learns without its quantizer; then k-means over its own
latents starts the codebooks, and they follow it from there. A codec folder is written every
`save_every` steps, so the run may be stopped at any time.
"""

from __future__ import annotations

import json
import sys
import time
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
from flax import nnx
from jaxtyping import Array, Float, Int
from safetensors.numpy import load_file
from tyro.conf import Positional

from convert import export_mimi, params_from_tensors
from layers_jax import TransformerConfig, bind, split
from layers_jax.command import run_command
from layers_jax.files import atomic_path
from layers_jax.functional import Params, abstract
from mimi_jax import Mimi, MimiConfig, QuantizerConfig, SeanetConfig, decode, encode
from recipes.tiny.codebooks import follow, quantize, start_codebooks
from recipes.tiny.codec_loss import codec_loss
from recipes.tiny.speech import random_chunks, read_channels
from rewards import load_vad, resample_24k_to_16k, speech_probabilities

CODEC_NAME, CODEC_CONFIG_NAME = "tokenizer-tiny-mimi.safetensors", "mimi_config.json"


@dataclass(frozen=True, kw_only=True)
class CodecRecipe:
    """What is trained, and for how long."""

    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="DST")]
    """Gets the codec's config and weights; made if it is not there."""
    start: Path | None = None
    """Codec folder to go on from, codebooks included; None starts anew."""
    decoder_only: bool = False
    """Codes stay what they are: a language model that knows them stays valid."""
    steps: int = 1000
    """Updates."""
    unquantized_steps: int = 350
    """Updates before the codebooks are started; none when going on from a folder."""
    learning_rate: float = 2e-3
    """Of Adam; falls to a tenth over the last third of the run."""
    batch: int = 4
    """Chunks an update."""
    chunk_frames: int = 12
    """Frames of 80 ms in a chunk; a multiple of four fits all STFT hops."""
    save_every: int = 250
    """Updates between two reports and saved folders."""
    seed: int = 0
    """Of parameters, chunks, and dropped codebooks."""

    def run(self) -> None:
        """Trains, prints progress, writes the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        train(self)


def tiny_mimi() -> MimiConfig:
    """Kyutai's codec with a 25th of its channels: 0.8 M parameters."""
    return MimiConfig(
        seanet=SeanetConfig(dimension=64, n_filters=8),
        quantizer=QuantizerConfig(dimension=24, n_q=8, bins=256),
        transformer=TransformerConfig(
            dim=64,
            num_heads=4,
            num_layers=2,
            hidden=192,
            context=24,
            norm="layer",
            mlp="gelu",
            layer_scale=0.1,
        ),
    )


class CodecState(NamedTuple):
    """Everything an update changes."""

    params: Params
    optimizer: Any


def make_optimizer(recipe: CodecRecipe) -> optax.GradientTransformation:
    """Adam with a warm-up, a plateau and a last third of decay; gradients clipped at norm 1."""
    last = recipe.steps // 3
    rate = optax.join_schedules(
        [
            optax.linear_schedule(0.0, recipe.learning_rate, 50),
            optax.constant_schedule(recipe.learning_rate),
            optax.linear_schedule(recipe.learning_rate, 0.1 * recipe.learning_rate, last),
        ],
        [50, recipe.steps - last],
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b1=0.8, b2=0.99))


@partial(jax.jit, static_argnums=(0, 1), static_argnames="decoder_only", donate_argnums=2)
def codec_step(
    mimi: Mimi,
    optimizer: optax.GradientTransformation,
    state: CodecState,
    vad_params: Any,
    pcm: Float[Array, "B S"],
    quantized: Float[Array, ""],
    key: Array,
    *,
    decoder_only: bool = False,
) -> tuple[CodecState, dict[str, Float[Array, ""]]]:
    """One update of the codec and one move of its codebooks.

    Args:
      mimi: the codec's definition (static).
      optimizer: static.
      state: donated.
      vad_params: of the voice detector in the loss.
      pcm: chunks at 24 kHz.
      quantized: 0 before the codebooks are started; then the share of rows that is quantized.
      key: of the rows that pass unquantized and the levels that are dropped.
      decoder_only: leave everything that decides on codes as it is (static).
    """
    keys = jax.random.split(key, 4)
    batch, acoustic = pcm.shape[0], mimi.config.quantizer.n_q - 1
    on = jax.random.uniform(keys[0], (batch,)) < quantized
    fewer = jax.random.randint(keys[1], (batch,), 0, acoustic + 1)
    levels = jnp.where(jax.random.uniform(keys[2], (batch,)) < 0.25, fewer, acoustic)

    def loss(params: Params) -> tuple[jax.Array, tuple[Any, Any]]:
        model = bind(mimi, _fixed_codes(params) if decoder_only else params)
        codes = quantize(model.quantizer, model.latent(pcm), on, levels)
        columns, _ = model.upsample(codes.latent)
        decoded, _ = model.decoder(model.decoder_transformer(columns))
        terms = codec_loss(vad_params, pcm, decoded[..., 0])
        total = terms.total() + 0.25 * codes.commitment
        return total, (codes.chains, {"loss": total, **terms._asdict()})

    gradients, (chains, metrics) = jax.grad(loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradients, state.optimizer, state.params)
    # Codebooks have no gradient, so Adam leaves them where they are.
    params: Any = optax.apply_updates(state.params, updates)
    if decoder_only:
        return CodecState(params, opt_state), metrics
    moved = follow(params["quantizer"], chains, keys[3])
    kept = jax.tree.map(
        lambda new, old: jnp.where(quantized > 0, new, old), moved, params["quantizer"]
    )
    return CodecState({**params, "quantizer": kept}, opt_state), metrics


def _fixed_codes(params: Params) -> Params:
    """The parameters, those from the waveform to the codes without a gradient."""
    fixed = {
        name: jax.lax.stop_gradient(params[name])
        for name in ("encoder", "encoder_transformer", "downsample")
    }
    halves = {
        name: {**half, "input_projection": jax.lax.stop_gradient(half["input_projection"])}
        for name, half in params["quantizer"].items()
    }
    return {**params, **fixed, "quantizer": halves}


def train(recipe: CodecRecipe) -> Params:
    """Runs the recipe; returns the parameters that were written last."""
    rng = np.random.default_rng(recipe.seed)
    config, channels, vad_params = tiny_mimi(), read_channels(), load_vad()
    mimi = abstract(lambda: Mimi(config, rngs=nnx.Rngs(0)))
    optimizer = make_optimizer(recipe)
    first = 1 + (0 if recipe.start else recipe.unquantized_steps)
    if recipe.start:
        params = params_from_tensors(config, load_file(recipe.start / CODEC_NAME))
    else:
        params = split(Mimi(config, rngs=nnx.Rngs(recipe.seed)))[1]
    params = jax.tree.map(jnp.copy, params)  # no buffer twice: they are donated
    state, started = CodecState(params, optimizer.init(params)), time.monotonic()
    samples = recipe.chunk_frames * config.frame_samples
    print(f"{sum(leaf.size for leaf in jax.tree.leaves(params))} parameters", flush=True)
    recent: list[dict[str, float]] = []
    for step in range(1, recipe.steps + 1):
        if step == first and not recipe.start:
            latents = _latents(mimi, state.params, channels)
            quantizer = start_codebooks(state.params["quantizer"], latents, rng)
            state = state._replace(params={**state.params, "quantizer": quantizer})
        pcm = random_chunks(channels, rng, batch=recipe.batch, samples=samples)
        share = 0.9 if step >= first else 0.0
        key = jax.random.key(step)
        state, metrics = codec_step(
            mimi,
            optimizer,
            state,
            vad_params,
            jnp.asarray(pcm),
            jnp.float32(share),
            key,
            decoder_only=recipe.decoder_only,
        )
        recent.append(jax.tree.map(float, metrics))
        if step % 25 == 0 or step == recipe.steps:
            means = {name: np.mean([m[name] for m in recent]) for name in recent[0]}
            shown = " ".join(f"{name} {value:.3f}" for name, value in means.items())
            print(f"{time.monotonic() - started:6.0f} s  step {step}: {shown}", flush=True)
            recent = []
        if step % recipe.save_every == 0 or step == recipe.steps:
            save(recipe.folder, config, state.params)
            if step >= first:
                print(f"  {json.dumps(agreement(mimi, state.params, channels))}", flush=True)
    return state.params


def save(folder: Path, config: MimiConfig, params: Params) -> None:
    """Writes weights and config under the names of the tiny checkpoint."""
    export_mimi(folder / CODEC_NAME, config, params, dtypes="float32")
    with atomic_path(folder / CODEC_CONFIG_NAME) as temporary:
        temporary.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")


def agreement(mimi: Mimi, params: Params, channels: Float[np.ndarray, "C S"]) -> dict[str, float]:
    """How a voice detector hears a streamed round trip: shares of hops of 32 ms, and the level."""
    frames = channels.shape[1] // mimi.config.frame_samples * mimi.config.frame_samples
    original = jnp.asarray(channels[:, :frames])
    decoded, codes = _round_trip(mimi, params, original)
    vad_params = load_vad()
    wanted, heard = (
        np.asarray(speech_probabilities(vad_params, resample_24k_to_16k(pcm))) > 0.5
        for pcm in (original, decoded)
    )
    used = [len(np.unique(book)) for book in np.asarray(codes).swapaxes(0, 1)]
    level = float(jnp.sqrt(jnp.mean(decoded**2) / jnp.mean(original**2)))
    return {
        "agreement": round(float(np.mean(wanted == heard)), 4),
        "recall": round(float(np.mean(heard[wanted])), 4),
        "false_alarm": round(float(np.mean(heard[~wanted])), 4),
        "level": round(level, 3),
        "entries_used": round(float(np.mean(used)), 1),
    }


@partial(jax.jit, static_argnums=0)
def _round_trip(
    mimi: Mimi, params: Params, pcm: Float[Array, "B S"]
) -> tuple[Float[Array, "B S"], Int[Array, "B K T"]]:
    codes = encode(mimi, params, pcm)
    return decode(mimi, params, codes), codes


def _latents(
    mimi: Mimi, params: Params, channels: Float[np.ndarray, "C S"]
) -> Float[np.ndarray, "N D"]:
    """Latents of the whole conversation at both ends of the gain range."""
    frames = channels.shape[1] // mimi.config.frame_samples * mimi.config.frame_samples
    both = np.concatenate([channels[:, :frames], 0.5 * channels[:, :frames]])
    latent = jax.jit(lambda p, pcm: bind(mimi, p).latent(pcm))(params, jnp.asarray(both))
    return np.asarray(latent).reshape(-1, latent.shape[-1])


def main(argv: Sequence[str] | None = None) -> int:
    """Trains with the recipe given by flags; returns 0."""
    tyro.cli(CodecRecipe, args=argv, description=__doc__).run()
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m recipes.tiny.codec", main))
