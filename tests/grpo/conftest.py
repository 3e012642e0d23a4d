"""A model and codec small enough to compile in seconds, as modules and as a checkpoint folder."""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convert import export_mimi, export_moshi
from helium_jax import Moshi, MoshiConfig
from layers_jax import TransformerConfig, split
from layers_jax.functional import Params, abstract
from mimi_jax import Mimi, MimiConfig, QuantizerConfig, SeanetConfig


class Small(NamedTuple):
    """Definitions and random float32 parameters."""

    lm: Moshi
    params: Params
    mimi: Mimi
    mimi_params: Params

    @property
    def frame(self) -> int:
        """Samples a frame: 24."""
        return self.mimi.config.frame_samples


LM = MoshiConfig(
    dim=16,
    text_card=11,
    n_q=4,
    dep_q=2,
    card=8,
    num_heads=2,
    num_layers=2,
    context=6,  # rollouts of the tests are longer: the ring wraps
    depformer_dim=8,
    depformer_dim_feedforward=24,
    depformer_num_heads=2,
    depformer_num_layers=1,
    delays=(0, 0, 1, 0, 1),
)
MIMI = MimiConfig(
    frame_rate=1000,
    seanet=SeanetConfig(dimension=8, n_filters=2, ratios=(4, 3)),
    quantizer=QuantizerConfig(dimension=4, n_q=2, bins=8),
    transformer=TransformerConfig(
        dim=8,
        num_heads=2,
        num_layers=1,
        hidden=16,
        context=8,
        norm="layer",
        mlp="gelu",
        layer_scale=0.01,
    ),
    num_codebooks=2,
)


def random_params(module: nnx.Module, seed: int) -> Params:
    """Parameters drawn by numpy: XLA would take a minute to compile the same draws."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        values = rng.normal(size=leaf.shape)
        if name in ("scale", "cluster_usage", "initialized"):
            values = 1 + 0.1 * values
        elif name == "kernel":
            fused = getattr(path[-2], "key", None) in ("qkv", "gate_up")
            values /= np.sqrt(leaf.shape[0 if fused else -2])  # a convolution's is [K, C, D]
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, split(module)[1])


@pytest.fixture(scope="session")
def small() -> Small:
    def lm() -> Moshi:
        return Moshi(LM, rngs=nnx.Rngs(1))

    def mimi() -> Mimi:
        return Mimi(MIMI, rngs=nnx.Rngs(2))

    lm_module, mimi_module = abstract(lm), abstract(mimi)
    return Small(lm_module, random_params(lm_module, 1), mimi_module, random_params(mimi_module, 2))


@pytest.fixture(scope="session")
def user_pcm(small) -> np.ndarray:
    """User audio of 20 frames."""
    return np.random.default_rng(3).normal(size=20 * small.frame).astype(np.float32)


@pytest.fixture(scope="session")
def small_checkpoint(small, tmp_path_factory) -> Path:
    """`small` in Kyutai's layout."""
    folder = tmp_path_factory.mktemp("small") / "checkpoint"
    export_moshi(folder, LM, jax.device_get(small.params))
    export_mimi(folder / "mimi.safetensors", MIMI, jax.device_get(small.mimi_params))
    (folder / "mimi_config.json").write_text(json.dumps(MIMI.to_dict()))
    (folder / "tokenizer.model").write_bytes(b"not read by training")
    names = {
        "mimi_name": "mimi.safetensors",
        "mimi_config_name": "mimi_config.json",
        "tokenizer_name": "tokenizer.model",
    }
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | names))
    return folder
