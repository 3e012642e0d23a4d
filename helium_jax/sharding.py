"""The step over several devices: matrices, rings and tables split over one mesh axis.

Attention heads and feed-forward channels are divided, so a layer needs two sums over the devices;
the input embeddings are gathered once a frame, the text logits summed once. The depth transformer
is computed on every device unless asked otherwise: splitting it saves bytes and costs two sums a
layer and codebook, each a latency.
"""

import re
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from helium_jax.config import MoshiConfig

__all__ = ["MODEL_AXIS", "param_shardings", "state_shardings"]

MODEL_AXIS = "model"

# Axis of a leaf that is divided, counted from the kernel's first. A product divided over its input
# channels is summed over devices; one divided over its output channels leaves them divided.
_COLUMNS = {"qkv": 1, "gate_up": 2}
_ROWS = {"out", "down"}
_LEAF = re.compile(r"(\w+)\.(kernel|scale|lora_a|lora_b)$")


def param_shardings(
    config: MoshiConfig, params: Any, mesh: Mesh, *, split_depth: bool = False
) -> Any:
    """A sharding for each leaf of a model's parameters, layers listed.

    Args:
      config: the model's shapes.
      params: its parameters, or their shapes.
      mesh: devices, with an axis `model`; other axes hold copies.
      split_depth: divide the depth transformer too.

    Raises:
      ValueError: the mesh has no such axis, or heads or channels are not a multiple of it.
    """
    size = _size(mesh)
    _check(config, size, split_depth)

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        name = _dotted(path)
        divided = name.startswith("temporal.") or (split_depth and name.startswith("depth."))
        spec = _block_spec(name, leaf.ndim) if divided else None
        if name in ("audio_embedding.table", "text_embedding.table"):
            spec = Spec(None, MODEL_AXIS)
        elif name in ("text_head.kernel", "text_head.lora_a"):
            spec = Spec(MODEL_AXIS)
        return NamedSharding(mesh, spec or Spec())

    return jax.tree_util.tree_map_with_path(sharding, params)


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """A sharding for each leaf of a `MoshiState`: rings by heads, the rest on every device."""
    _size(mesh)

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        is_ring = "caches" in jax.tree_util.keystr(path)
        return NamedSharding(mesh, Spec(None, MODEL_AXIS) if is_ring else Spec())

    return jax.tree_util.tree_map_with_path(sharding, state)


def _block_spec(name: str, ndim: int) -> Spec | None:
    """How a leaf of an attention or feed-forward block is divided; None if it is not."""
    found = _LEAF.search(name)
    if found is None or found[1] not in {*_COLUMNS, *_ROWS}:
        return None
    layer, leaf = found.groups()
    if layer in _ROWS:
        return Spec(MODEL_AXIS) if leaf in ("kernel", "lora_a") else None
    axis = _COLUMNS[layer]
    if leaf == "lora_a":
        return None
    return Spec(*[None] * (axis - (leaf == "scale")), MODEL_AXIS)


def _check(config: MoshiConfig, size: int, split_depth: bool) -> None:
    parts = {"num_heads / kv_repeat": config.temporal.num_kv_heads, "dim": config.dim}
    parts["the feed-forward width"] = config.temporal.hidden
    if split_depth and config.dep_q:
        parts["the depth transformer's key heads"] = config.depth.num_kv_heads
        parts["the depth transformer's feed-forward width"] = config.depth.hidden
    wrong = [f"{name} is {count}" for name, count in parts.items() if count % size]
    if wrong:
        raise ValueError(
            f"{'; '.join(wrong)}, expected multiples of the {size} devices on the mesh axis "
            f"{MODEL_AXIS!r}; use fewer devices"
        )


def _size(mesh: Mesh) -> int:
    if MODEL_AXIS not in mesh.shape:
        raise ValueError(
            f"the mesh has axes {', '.join(mesh.axis_names)}, expected one called {MODEL_AXIS!r}"
        )
    return mesh.shape[MODEL_AXIS]


def _dotted(path: Any) -> str:
    return ".".join(str(getattr(entry, "key", getattr(entry, "idx", entry))) for entry in path)
