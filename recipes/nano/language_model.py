"""Trains the language model of the nano checkpoint, and writes the checkpoint folder.

    python -m recipes.nano.language_model RUNS/codec RUNS/lm

Conversations are composed of the bank, encoded once by the codec, and learnt by `moshi-jax
pretrain`. A stage is left alone where it is finished, and continued where it is not.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import jax
import tyro
from flax import nnx
from tyro.conf import Positional

from convert import export_moshi
from grpo.config import OptimizerConfig
from grpo.tracking import log_progress
from helium_jax import Moshi, MoshiConfig, TextTokenizer
from layers_jax import atomic_path, split
from layers_jax.command import run_command
from mimi_jax import MimiConfig
from moshi_jax.nano.bank import read_bank
from moshi_jax.nano.conversations import Voices
from moshi_jax.nano.corpus import write_corpus
from moshi_jax.pretrain import EncodeConfig, PretrainConfig, encode_corpus, pretrain
from moshi_jax.pretrain.train import LOGGER
from recipes.nano.tokenizer import train_tokenizer

__all__ = ["LanguageModelRecipe", "nano_moshi", "train_language_model"]

CODEC_CONFIG_NAME, TOKENIZER_NAME = "mimi_config.json", "tokenizer_spm_nano.model"
EVAL_SEED = 1_000_000
"""Far from the seeds of training conversations."""


@dataclass(frozen=True, kw_only=True)
class LanguageModelRecipe:
    """What is trained, and for how long."""

    codec: Annotated[Positional[Path], tyro.conf.arg(metavar="CODEC")]
    """Folder with the codec: mimi_config.json and one .safetensors file."""
    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="DST")]
    """Gets start/ (the untrained checkpoint), conversations/, tokens/, run/export/ (the result)."""
    bank: Path | None = None
    """Recordings of the repertoire; the embedded ones by default."""
    conversations: int = 500
    """Composed conversations of 30 s to learn from."""
    eval_conversations: int = 16
    """Conversations of held-out lines, to look at."""
    codebooks: int | None = None
    """Codebooks of each speaker; all that the codec has if none."""
    steps: int = 500
    """Updates."""
    batch: int = 8
    """Cuts an update."""
    cut_frames: int = 256
    """Frames of a cut: 20 s, as long as a rollout of GRPO."""
    user_weight: float = 1.0
    """Weight of predicting the user."""
    seed: int = 0
    """Of parameters, conversations and cuts."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=2e-3, weight_decay=0.01, clip_norm=1.0, warmup_updates=50
        )
    )

    def run(self) -> None:
        """Trains, and says how long each stage took."""
        log_progress()
        log_progress(LOGGER)
        print(f"wrote {train_language_model(self)}")


def nano_moshi(codec: MimiConfig, text_card: int, codebooks: int | None = None) -> MoshiConfig:
    """Moshi with every stream of the 7B model and 4 M parameters."""
    each = codec.quantizer.n_q if codebooks is None else codebooks
    delays = (0, *(0, *[1] * (each - 1)) * 2)
    return MoshiConfig(
        dim=192,
        text_card=text_card,
        card=codec.quantizer.bins,
        n_q=2 * each,
        dep_q=each,
        num_heads=4,
        num_layers=4,
        context=256,
        depformer_dim=128,
        depformer_dim_feedforward=288,
        depformer_num_heads=4,
        depformer_num_layers=2,
        delays=delays,
    )


def train_language_model(recipe: LanguageModelRecipe) -> Path:
    """Runs what is left of the recipe; returns the checkpoint folder."""
    start, run = recipe.folder / "start", recipe.folder / "run"
    recipe.folder.mkdir(parents=True, exist_ok=True)
    if not start.exists():
        write_untrained(recipe, start)
    tokens = {}
    for split_name, seed, count in (
        ("train", recipe.seed, recipe.conversations),
        ("heldout", EVAL_SEED + recipe.seed, recipe.eval_conversations),
    ):
        tokens[split_name] = recipe.folder / "tokens" / split_name
        if tokens[split_name].exists():
            continue
        began = time.monotonic()
        voices = Voices(read_bank(recipe.bank), split_name)
        wavs = recipe.folder / "conversations" / split_name
        table = write_corpus(wavs, voices, seed=seed, count=count)
        encode_corpus(
            EncodeConfig(source=table, destination=tokens[split_name], checkpoint=start, batch=8)
        )
        print(f"{time.monotonic() - began:6.0f} s  {split_name}: {count} conversations", flush=True)
    began = time.monotonic()
    pretrain(
        PretrainConfig(
            checkpoint=start,
            data=tokens["train"],
            eval_data=tokens["heldout"],
            run_dir=run,
            steps=recipe.steps,
            batch=recipe.batch,
            cut_frames=recipe.cut_frames,
            from_start=0.5,
            first_codebook_weight=3.0,
            user_weight=recipe.user_weight,
            precision="f32",
            export_dtypes="bfloat16",
            devices=1,
            log_every=20,
            eval_every=200,
            checkpoint_every=200,
            seed=recipe.seed,
            optimizer=recipe.optimizer,
        )
    )
    print(f"{time.monotonic() - began:6.0f} s  {recipe.steps} updates", flush=True)
    return run / "export"


def write_untrained(recipe: LanguageModelRecipe, folder: Path) -> None:
    """Writes the folder as Kyutai publishes one, with random weights of the language model.

    Raises:
      FileNotFoundError: no codec there.
    """
    weights = sorted(recipe.codec.glob("*.safetensors"))
    config_path = recipe.codec / CODEC_CONFIG_NAME
    if len(weights) != 1 or not config_path.is_file():
        raise FileNotFoundError(
            f"{recipe.codec} has {len(weights)} .safetensors file(s), expected one and a "
            f"{CODEC_CONFIG_NAME}; train the codec first: python -m recipes.nano.codec"
        )
    codec = MimiConfig.from_dict(
        json.loads(config_path.read_text(encoding="utf-8")), num_codebooks=1
    )
    with atomic_path(folder) as made:
        made.mkdir()
        tokenizer = TextTokenizer(train_tokenizer(made / TOKENIZER_NAME))
        config = nano_moshi(codec, tokenizer.vocabulary, recipe.codebooks)
        params = jax.jit(lambda: split(Moshi(config, rngs=nnx.Rngs(recipe.seed)))[1])()
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        print(f"{count / 1e6:.2f} M parameters", flush=True)
        export_moshi(made / "lm", config, params, dtypes="bfloat16")
        (made / "lm" / "model.safetensors").rename(made / "model.safetensors")
        shutil.rmtree(made / "lm")
        shutil.copy(weights[0], made / weights[0].name)
        shutil.copy(config_path, made / CODEC_CONFIG_NAME)
        values = {
            **config.to_dict(),
            "moshi_name": "model.safetensors",
            "mimi_name": weights[0].name,
            "mimi_config_name": CODEC_CONFIG_NAME,
            "tokenizer_name": TOKENIZER_NAME,
            "model_type": "moshi",
            "lm_gen_config": {"temp": 0.8, "temp_text": 0.7, "top_k": 250, "top_k_text": 25},
        }
        (made / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains with the recipe given by flags; returns 0."""
    tyro.cli(LanguageModelRecipe, args=argv, description=__doc__).run()
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m recipes.nano.language_model", main))
