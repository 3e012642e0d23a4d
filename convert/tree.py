"""Values through a plan, one at a time: a leaf out of a file, a tensor out of our leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import jax
import numpy as np

from convert.errors import ConversionError, describe
from convert.moshi import ALWAYS_FLOAT32
from convert.rules import Link, Plan, flatten, leaf_block
from convert.safetensors_io import FLOATS, FORMATS, TensorInfo, Tensors
from convert.transforms import Shape, to_jax, to_torch

Formats = dict[str, str]  # released tensor name -> "F32", "BF16" or "F16"


def read_tree(
    plan: Plan,
    file: Tensors,
    abstract: Any,
    *,
    dtype: np.dtype | None = None,
    place: Callable[[np.ndarray], Any] = lambda leaf: leaf,
) -> Any:
    """The parameters of a file as a tree like `abstract`, one leaf at a time.

    Args:
      plan: made with the tensors of this file.
      file: the open file.
      abstract: our tree; only its structure is used.
      dtype: format of every leaf; None keeps the stored one (the narrowest format that holds all
        of a leaf's tensors, where they differ), and so do the leaves of `ALWAYS_FLOAT32`.
      place: called with each finished leaf, to put it on a device.
    """

    def leaf(path: str) -> np.ndarray:
        if path in plan.derived:
            inputs, compute = plan.derived[path]
            return compute(*map(leaf, inputs))
        return _read_leaf(plan, path, file, None if path.startswith(ALWAYS_FLOAT32) else dtype)

    leaves = [place(leaf(path)) for path in flatten(abstract)]
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def _read_leaf(plan: Plan, path: str, file: Tensors, dtype: np.dtype | None) -> np.ndarray:
    links, shape = plan.leaves[path], plan.leaf_shapes[path]
    target = dtype or FLOATS[_common(file.tensors[link.key].format for link in links)]
    if len(links) == 1:
        return _read_block(links[0], shape, file).astype(target, copy=False)
    leaf = np.empty(shape, target)
    for link in links:
        index, rows = link.path_part[0], shape[0] // link.path_part[1]
        leaf[index * rows : (index + 1) * rows] = _read_block(link, shape, file).astype(
            target, copy=False
        )
    return leaf


def _read_block(link: Link, shape: Shape, file: Tensors) -> np.ndarray:
    stored = file.read(link.key, link.key_part)
    return to_jax(link.transform, stored, leaf_block(shape, link.path_part))


def make_tensor(plan: Plan, key: str, leaves: Mapping[str, Any], format: str) -> np.ndarray:
    """PyTorch tensor `key` out of our leaves; rounds to nearest even if `format` is narrower."""
    blocks = []
    for link in sorted(plan.tensors[key], key=lambda link: link.key_part):
        index, count = link.path_part
        leaf = leaves[link.path]
        rows = leaf.shape[0] // count
        leaf = np.asarray(leaf[index * rows : (index + 1) * rows] if count > 1 else leaf)
        blocks.append(to_torch(link.transform, leaf.astype(FLOATS[format], copy=False)))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def check_tree(plan: Plan, params: Any, *, subject: str) -> dict[str, Any]:
    """The leaves of `params` by path, when they are exactly those of the plan.

    Raises:
      ConversionError: naming at once every missing, unexpected, mis-shaped and mis-typed leaf.
    """
    leaves, expected = flatten(params), plan.leaf_shapes
    both = [path for path in expected if path in leaves]
    problems = [
        *describe("missing", ((path, "") for path in expected if path not in leaves)),
        *describe("unexpected", ((path, "") for path in leaves if path not in expected)),
        *describe(
            "wrong shape:",
            (
                (path, f" got {list(leaves[path].shape)}, expected {list(expected[path])}")
                for path in both
                if leaves[path].shape != expected[path]
            ),
        ),
        *describe(
            "wrong dtype:",
            (
                (path, f" got {leaves[path].dtype}, expected one of {', '.join(FLOATS)}")
                for path in both
                if np.dtype(leaves[path].dtype) not in FORMATS
            ),
        ),
    ]
    if problems:
        problems.append("give the parameters of this configuration, with a list entry a layer")
        raise ConversionError(problems, subject=subject)
    return leaves


def leaf_formats(plan: Plan, leaves: Mapping[str, Any]) -> Formats:
    """The format of each tensor when every leaf keeps the one it has."""
    return {
        key: _common(FORMATS[np.dtype(leaves[link.path].dtype)] for link in links)
        for key, links in plan.tensors.items()
    }


def stored_formats(read: Plan, stored: Mapping[str, TensorInfo], release: Plan) -> Formats:
    """The format that a file gives each tensor, under the released names whatever names it uses.

    Args:
      read: the plan made with the tensors of the file.
      stored: those tensors.
      release: the plan made without them.
    """
    of_block = {
        (link.path, link.path_part): stored[key].format
        for key, links in read.tensors.items()
        for link in links
    }
    return {
        key: _common(of_block[link.path, link.path_part] for link in links)
        for key, links in release.tensors.items()
    }


def _common(formats: Any) -> str:
    """The narrowest format that holds every value of all of them exactly."""
    return reduce(lambda a, b: a if a == b else "F32", formats)
