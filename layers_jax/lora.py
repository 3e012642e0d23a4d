"""Low-rank adapters beside a kernel: `y = x W + scaling * (x A) B` (arXiv 2106.09685).

In a parameter tree an adapter is two more leaves in the dict of its `Linear`: `lora_a` [D, R] and
`lora_b` [R, *E], next to `kernel` [D, *E]. The base model is the same tree without them.
Source: moshi/modules/lora.py, and the adapters that moshi-finetune trains.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

Tree = dict[str, Any]

LEAVES = ("lora_a", "lora_b")
LORA_KEYS = ("lora", "lora_rank", "lora_scaling")  # of a `config.json`


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Adapters of a model; the defaults are those of moshi-finetune.

    Attributes:
      rank: inner width R.
      scaling: factor of the adapter's output.
    """

    rank: int = 128
    scaling: float = 2.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"LoRA rank is {self.rank}, expected at least 1")


def read_lora(values: Mapping[str, Any]) -> LoraConfig | None:
    """The adapters that a `config.json` asks for; rank and scaling count where `lora` is true.

    Raises:
      ValueError: rank or scaling are no numbers, or the rank is below 1.
    """
    if not values.get("lora"):
        return None
    default = LoraConfig()
    rank = values.get("lora_rank", default.rank)
    scaling = values.get("lora_scaling", default.scaling)
    if type(rank) is not int or type(scaling) not in (int, float):
        raise ValueError(f"lora_rank is {rank!r}, lora_scaling {scaling!r}, expected two numbers")
    return LoraConfig(rank=rank, scaling=float(scaling))


def write_lora(config: LoraConfig | None) -> dict[str, Any]:
    """Inverse of `read_lora`; empty for no adapters."""
    if config is None:
        return {}
    return dict(zip(LORA_KEYS, (True, config.rank, config.scaling), strict=True))


def split_adapters(params: Tree) -> tuple[Tree, Tree]:
    """A parameter tree as (adapters, base model).

    Both keep the lists of the tree, so that an index means the same layer. The base is the tree of
    the same model without adapters; dicts of the first that hold no adapter are left out.
    """
    return _adapters(params), _base(params)


def merge_adapters(adapters: Tree, base: Tree) -> Tree:
    """Inverse of `split_adapters`: one tree again, of the same arrays."""
    return _merge(base, adapters)


def fuse(params: Tree, scaling: float) -> Tree:
    """The base model with its adapters added in: `W + scaling * A B`, in the format of W.

    Each of the three operations rounds to that format, as the reference does when it fuses.

    Args:
      params: tree with adapters, layers listed or stacked.
      scaling: `LoraConfig.scaling` of the model.

    Raises:
      ValueError: a kernel is quantised, so a sum with it would be quantised twice.
    """

    def walk(tree: Any) -> Any:
        if isinstance(tree, list):
            return [walk(item) for item in tree]
        if not isinstance(tree, dict):
            return tree
        if "lora_a" not in tree:
            return {name: walk(item) for name, item in tree.items()}
        kernel, dtype = tree["kernel"], tree["kernel"].dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"a kernel is {dtype}, expected a float format to fuse adapters into; "
                "fuse first and quantise the result"
            )
        a, b = (jnp.asarray(tree[name]).astype(dtype) for name in LEAVES)
        flat = b.reshape(*a.shape[:-2], b.shape[a.ndim - 2], -1)
        product = jnp.matmul(a, flat, precision="highest", preferred_element_type=jnp.float32)
        delta = scaled(product.astype(dtype).reshape(kernel.shape), scaling)
        rest = {name: item for name, item in tree.items() if name not in LEAVES}
        return {**rest, "kernel": kernel + delta}

    return walk(params)


def scaled(x: jax.Array, scaling: float) -> jax.Array:
    """`scaling * x`, rounded once: the factor itself is not rounded to the format of x."""
    return (scaling * x.astype(jnp.float32)).astype(x.dtype)


def _adapters(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_adapters(item) for item in tree]
    kept = {name: item for name, item in tree.items() if name in LEAVES}
    for name, item in tree.items():
        if isinstance(item, dict | list):
            found = _adapters(item)
            if jax.tree.leaves(found):
                kept[name] = found
    return kept


def _base(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_base(item) for item in tree]
    if isinstance(tree, dict):
        return {name: _base(item) for name, item in tree.items() if name not in LEAVES}
    return tree


def _merge(base: Any, adapters: Any) -> Any:
    if isinstance(base, list):
        return [_merge(*pair) for pair in zip(base, adapters, strict=True)]
    merged = dict(base)
    for name, item in adapters.items():
        merged[name] = _merge(base[name], item) if name in base else item
    return merged
