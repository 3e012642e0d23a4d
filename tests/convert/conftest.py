"""Small models whose every size is different, and random weights for them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from convert.sources import abstract_params
from helium_jax import MoshiConfig
from mimi_jax import MimiConfig
from mimi_jax import nano as nano_mimi

KEYS_FOLDER = Path(__file__).resolve().parent.parent / "golden" / "keys"
FORMATS = (np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16))


@pytest.fixture(scope="session")
def small_lm() -> MoshiConfig:
    """Grouped queries in both transformers, sizes that cannot be mistaken for one another."""
    return MoshiConfig(
        dim=24,
        text_card=13,
        n_q=5,
        dep_q=3,
        card=7,
        num_heads=6,
        num_layers=2,
        hidden_scale=3.5,
        context=9,
        kv_repeat=3,
        depformer_dim=16,
        depformer_dim_feedforward=30,
        depformer_num_heads=4,
        depformer_num_layers=2,
        depformer_kv_repeat=2,
        delays=(0, 0, 1, 1, 0, 1),
    )


@pytest.fixture(scope="session")
def small_mimi() -> MimiConfig:
    """Two residual units a stage, so that positions in PyTorch's lists do not fit by accident."""
    nano = nano_mimi()
    return replace(
        nano,
        sample_rate=300,
        seanet=replace(nano.seanet, dimension=20, n_filters=6, n_residual_layers=2, ratios=(4, 3)),
        quantizer=replace(nano.quantizer, dimension=10, n_q=4, bins=14),
        transformer=replace(nano.transformer, dim=20, num_heads=2, num_layers=2, hidden=28),
        num_codebooks=3,
    )


@pytest.fixture(scope="session")
def random_params():
    """`random_params(config, seed, dtypes)`: a tree of random values, formats drawn a leaf."""

    def make(config: MoshiConfig | MimiConfig, seed: int = 0, dtypes: Any = FORMATS) -> Any:
        rng = np.random.default_rng(seed)

        def leaf(shape: Any) -> np.ndarray:
            dtype = dtypes[rng.integers(len(dtypes))]
            return rng.uniform(0.5, 2, shape.shape).astype(dtype)

        return jax.tree.map(leaf, abstract_params(config))

    return make


@pytest.fixture(scope="session")
def published_keys():
    """`published_keys(name)`: config and layouts (name -> [format, shape]) of a real checkpoint."""
    return lambda name: json.loads((KEYS_FOLDER / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def tiny_weights(tiny_checkpoint: Path) -> dict[str, np.ndarray]:
    """The language model's tensors of the embedded checkpoint."""
    return load_file(tiny_checkpoint / "model.safetensors")


@pytest.fixture
def checkpoint_with(tiny_checkpoint: Path, tmp_path: Path):
    """`checkpoint_with(tensors)`: a copy of the embedded checkpoint with another model file."""
    import shutil

    from safetensors.numpy import save_file

    def make(tensors: dict[str, np.ndarray], name: str = "changed") -> Path:
        folder = tmp_path / name
        shutil.copytree(tiny_checkpoint, folder)
        save_file(
            {key: np.ascontiguousarray(value) for key, value in tensors.items()},
            folder / "model.safetensors",
        )
        return folder

    return make
