"""Trains the language model of the tiny checkpoint, and writes the checkpoint folder.

    python -m recipes.tiny.language_model runs/tiny-codec runs/tiny

Dialogues are composed from the turns of the sample conversation, encoded once by the codec of the
first stage, and learnt in random cuts. A complete checkpoint folder is written every `save_every`
steps, so the run may be stopped at any time.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
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
from jaxtyping import Array, Float, Int, Int32
from tyro.conf import Positional

from convert import export_moshi, params_from_tensors
from helium_jax import Moshi, MoshiConfig, TextTokenizer, forward, token_loss
from layers_jax import split
from layers_jax.command import run_command
from layers_jax.files import atomic_path
from layers_jax.functional import Params, abstract
from mimi_jax import Mimi, MimiConfig, encode
from recipes.tiny.codec import CODEC_CONFIG_NAME, CODEC_NAME
from recipes.tiny.dialogues import compose
from recipes.tiny.interleaver import text_stream
from recipes.tiny.speech import read_turns

TOKENIZER_NAME = "tokenizer_spm_tiny.model"
LOADER = {
    "moshi_name": "model.safetensors",
    "mimi_name": CODEC_NAME,
    "mimi_config_name": CODEC_CONFIG_NAME,
    "tokenizer_name": TOKENIZER_NAME,
    "model_type": "moshi",
    "lm_gen_config": {"temp": 0.8, "temp_text": 0.7, "top_k": 250, "top_k_text": 25},
}
"""Keys of `config.json` that are not the model's own."""


@dataclass(frozen=True, kw_only=True)
class LanguageModelRecipe:
    """What is trained, and for how long."""

    codec: Annotated[Positional[Path], tyro.conf.arg(metavar="CODEC")]
    """Folder of the first stage."""
    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="DST")]
    """Checkpoint folder; what is there is replaced."""
    tokenizer: Path = Path("moshi_jax/tiny") / TOKENIZER_NAME
    """SentencePiece model with PAD 3 and at most 255 pieces."""
    steps: int = 300
    """Updates. More make it surer of padding, the likelier token, and so more silent."""
    learning_rate: float = 2e-3
    """Of Adam, constant after a warm-up."""
    batch: int = 4
    """Cuts an update."""
    cut_frames: int = 128
    """Frames of 80 ms in a cut."""
    dialogues: int = 72
    """Composed dialogues of 30 s; one in twelve is kept for validation."""
    save_every: int = 100
    """Updates between two validations and saved folders."""
    seed: int = 0
    """Of parameters, dialogues and cuts."""

    def run(self) -> None:
        """Trains, prints progress, writes the folder."""
        train(self)


def tiny_moshi(card: int = 256) -> MoshiConfig:
    """Moshi with every stream of the 7B model and 1.4 M parameters."""
    return MoshiConfig(
        dim=96,
        text_card=255,
        card=card,
        num_heads=4,
        num_layers=3,
        context=100,
        depformer_dim=48,
        depformer_dim_feedforward=192,
        depformer_num_heads=4,
        depformer_num_layers=2,
    )


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def language_model_step(
    lm: Moshi,
    optimizer: optax.GradientTransformation,
    params: Params,
    opt_state: Any,
    streams: Int[Array, "B K T"],
) -> tuple[Params, Any, dict[str, Float[Array, ""]]]:
    """One update; `params` and `opt_state` are donated."""

    def loss(p: Params) -> tuple[jax.Array, dict[str, jax.Array]]:
        return _loss(lm, p, streams)

    gradients, metrics = jax.grad(loss, has_aux=True)(params)
    updates, opt_state = optimizer.update(gradients, opt_state, params)
    new: Any = optax.apply_updates(params, updates)
    return new, opt_state, metrics


@partial(jax.jit, static_argnums=0)
def evaluate(
    lm: Moshi, params: Params, streams: Int[Array, "B K T"]
) -> dict[str, Float[Array, ""]]:
    """The loss's terms without an update."""
    return _loss(lm, params, streams)[1]


def _loss(
    lm: Moshi, params: Params, streams: Int[Array, "B K T"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """What is minimised, and its parts; words and the first codebook alone are to look at."""
    logits = forward(lm, params, streams)
    terms = token_loss(
        lm.config, logits, streams, first_codebook_weight=3.0, text_padding_weight=0.5
    )
    words = token_loss(lm.config, logits, streams, text_padding_weight=0.0).text
    return terms.value(), {
        "text": terms.text.mean(),
        "audio": terms.audio.mean(),
        "words": words.mean(),
        "first": terms.per_codebook.mean()[0],
    }


def make_streams(
    recipe: LanguageModelRecipe, mimi: Mimi, mimi_params: Params
) -> Int32[np.ndarray, "N K T"]:
    """Text, agent and user streams of composed dialogues, as a live session would hear them."""
    rng, turns = np.random.default_rng(recipe.seed), read_turns()
    tokenizer = TextTokenizer(recipe.tokenizer)
    dialogues = [compose(turns, rng) for _ in range(recipe.dialogues)]
    listen = jax.jit(lambda pcm: encode(mimi, mimi_params, pcm))
    codes = np.concatenate(
        [
            np.asarray(listen(jnp.asarray(np.concatenate([d.pcm for d in dialogues[i : i + 24]]))))
            for i in range(0, len(dialogues), 24)
        ]
    )
    codes = codes.reshape(len(dialogues), -1, codes.shape[-1])
    text = [text_stream(d.words, codes.shape[-1], tokenizer.encode) for d in dialogues]
    return np.concatenate([np.stack(text)[:, None], codes], axis=1)


def random_cuts(
    streams: Int32[np.ndarray, "N K T"], rng: np.random.Generator, *, batch: int, frames: int
) -> Int32[np.ndarray, "B K F"]:
    """Random cuts; every second one begins where its dialogue does, as a session does."""
    rows = rng.integers(len(streams), size=batch)
    starts = rng.integers(streams.shape[2] - frames + 1, size=batch) * (np.arange(batch) % 2)
    return np.stack([streams[r, :, s : s + frames] for r, s in zip(rows, starts, strict=True)])


def train(recipe: LanguageModelRecipe) -> Params:
    """Runs the recipe; returns the last parameters."""
    started = time.monotonic()
    mimi, mimi_params = read_codec(recipe.codec)
    config = tiny_moshi(mimi.config.quantizer.bins)
    streams = make_streams(recipe, mimi, mimi_params)
    held_out = len(streams) // 12
    print(f"{time.monotonic() - started:6.0f} s  encoded {len(streams)} dialogues", flush=True)
    lm = abstract(lambda: Moshi(config, rngs=nnx.Rngs(0)))
    params = split(Moshi(config, rngs=nnx.Rngs(recipe.seed)))[1]
    print(f"{sum(leaf.size for leaf in jax.tree.leaves(params))} parameters", flush=True)
    rate = optax.linear_schedule(0.0, recipe.learning_rate, 50)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b1=0.9, b2=0.95))
    opt_state = optimizer.init(params)
    rng, recent = np.random.default_rng(recipe.seed + 1), []
    for step in range(1, recipe.steps + 1):
        cuts = random_cuts(streams[held_out:], rng, batch=recipe.batch, frames=recipe.cut_frames)
        params, opt_state, metrics = language_model_step(
            lm, optimizer, params, opt_state, jnp.asarray(cuts)
        )
        recent.append(jax.tree.map(float, metrics))
        if step % 50 == 0 or step == recipe.steps:
            means = {name: np.mean([m[name] for m in recent]) for name in recent[0]}
            _report(started, f"step {step}", means)
            recent = []
        if step % recipe.save_every == 0 or step == recipe.steps:
            values = evaluate(lm, params, jnp.asarray(streams[:held_out, :, : recipe.cut_frames]))
            _report(started, "  held out", values)
            write_checkpoint(recipe, config, params)
    return params


def read_codec(folder: Path) -> tuple[Mimi, Params]:
    """The codec that the first stage wrote."""
    from safetensors.numpy import load_file

    values = json.loads((folder / CODEC_CONFIG_NAME).read_text(encoding="utf-8"))
    config = MimiConfig.from_dict(values)
    mimi = abstract(lambda: Mimi(config, rngs=nnx.Rngs(0)))
    return mimi, params_from_tensors(config, load_file(folder / CODEC_NAME))


def write_checkpoint(recipe: LanguageModelRecipe, config: MoshiConfig, params: Params) -> None:
    """Writes the folder as Kyutai publishes one: bfloat16 language model, codec, tokenizer."""
    recipe.folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(recipe.folder) as folder:
        export_moshi(folder, config, params, dtypes="bfloat16")
        for name in (CODEC_NAME, CODEC_CONFIG_NAME):
            shutil.copy(recipe.codec / name, folder / name)
        shutil.copy(recipe.tokenizer, folder / TOKENIZER_NAME)
        values = {**config.to_dict(), **LOADER}
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _report(started: float, what: str, values: dict[str, Any]) -> None:
    shown = " ".join(f"{name} {float(value):.3f}" for name, value in values.items())
    print(f"{time.monotonic() - started:6.0f} s  {what}: {shown}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains with the recipe given by flags; returns 0."""
    tyro.cli(LanguageModelRecipe, args=argv, description=__doc__).run()
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m recipes.tiny.language_model", main))
