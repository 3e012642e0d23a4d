"""LoRA: adapters beside a frozen base, which is its own reference when they are left out."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from flax import nnx

from grpo.config import LoraTraining
from helium_jax import Moshi
from layers_jax import LoraConfig, fuse, merge_adapters, split, split_adapters
from layers_jax.functional import Params, abstract
from layers_jax.lora import LEAVES

TARGETS = {"attention": "attention", "mlp": "mlp", "head": "text_head"}
"""Name of a target -> the entry of the parameter tree that holds its matrices."""


def with_adapters(lm: Moshi, lora: LoraTraining) -> Moshi:
    """The definition of `lm` with adapters beside every matrix; as it is without a rank."""
    if lora.rank is None:
        return lm
    config = replace(lm.config, lora=LoraConfig(rank=lora.rank, scaling=lora.scaling))
    return abstract(lambda: Moshi(config, precision=lm.precision, rngs=nnx.Rngs(0)))


def add_adapters(lm: Moshi, base: Params, seed: int) -> Params:
    """Parameters of `lm`: those of its base and fresh adapters.

    A is uniform in ±1/sqrt(D), B is zero: the model says what its base says.

    Args:
        lm: with adapters, layers listed.
        base: parameters without.
        seed: of A, drawn on the host: the same whatever the devices.
    """
    rng = np.random.default_rng([seed, 0x10FA])

    def draw(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        if getattr(path[-1], "key", None) == "lora_b":
            return np.zeros(leaf.shape, np.float32)
        limit = leaf.shape[0] ** -0.5
        return rng.uniform(-limit, limit, leaf.shape).astype(np.float32)

    adapters, _ = split_adapters(split(lm)[1])
    return merge_adapters(jax.tree_util.tree_map_with_path(draw, adapters), base)


def is_trained(lora: LoraTraining, path: tuple[str, ...]) -> bool:
    """Whether the leaf at `path` is an adapter of a target."""
    entries = {TARGETS[target] for target in lora.targets}
    return path[-1] in LEAVES and bool(entries & set(path))


def fused(params: Params, scaling: float) -> Params:
    """Host parameters, layers listed, with their adapters added in, one entry at a time.

    A device need not hold more than a layer in float32.
    """
    add = jax.jit(lambda part: fuse(part, scaling))

    def one(part: Any) -> Any:
        return jax.device_get(add(part))

    layers = [one(layer) for layer in params["temporal"]["layers"]]
    rest = {name: one(part) for name, part in params.items() if name != "temporal"}
    return {**rest, "temporal": {"layers": layers}}
