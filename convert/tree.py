"""Values through a plan, one at a time: a leaf out of a file, a tensor out of our leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any

import jax
import numpy as np

from convert.errors import ConversionError, describe
from convert.moshi import ALWAYS_FLOAT32
from convert.rules import Link, Plan, dotted, leaf_block
from convert.safetensors_io import FLOATS, FORMATS, TensorInfo, Tensors
from convert.transforms import Shape, to_jax, to_torch

Formats = dict[str, str]  # released tensor name -> "F32", "BF16" or "F16"


def read_leaves(
    plan: Plan, file: Tensors, abstract: Any, *, dtype: np.dtype | None = None, subject: str
) -> Iterator[tuple[Any, np.ndarray]]:
    """The parameters of a file in the order of `abstract`, one leaf at a time with its key path.

    Args:
      plan: made with the tensors of this file.
      file: the open file.
      abstract: our tree; only its structure is used.
      dtype: format of every leaf; None keeps the stored one (the narrowest format that holds all
        of a leaf's tensors, where they differ), and so do the leaves of `ALWAYS_FLOAT32`.
      subject: what to call the file in an error.

    Raises:
      ConversionError: after the last leaf, naming every tensor with a NaN or an infinity.
    """
    broken: set[str] = set()

    def leaf(path: str) -> np.ndarray:
        if path in plan.derived:
            inputs, compute = plan.derived[path]
            return compute(*map(leaf, inputs))
        value = _read_leaf(plan, path, file, None if path.startswith(ALWAYS_FLOAT32) else dtype)
        if not all_finite(value):
            broken.update(link.key for link in plan.leaves[path])
        return value

    for keys, _ in jax.tree_util.tree_leaves_with_path(abstract):
        yield keys, leaf(dotted(keys))
    if broken:
        problems = describe("not finite:", ((key, "") for key in sorted(broken)))
        raise ConversionError([*problems, "fetch the file again"], subject=subject)


def read_tree(
    plan: Plan,
    file: Tensors,
    abstract: Any,
    *,
    dtype: np.dtype | None = None,
    place: Callable[[np.ndarray], Any] = lambda leaf: leaf,
    subject: str,
) -> Any:
    """`read_leaves` as a tree like `abstract`; `place` is called with each finished leaf."""
    leaves = read_leaves(plan, file, abstract, dtype=dtype, subject=subject)
    return jax.tree.unflatten(jax.tree.structure(abstract), [place(leaf) for _, leaf in leaves])


# The exponent of a NaN or an infinity has all its bits set.
_EXPONENTS = {"F32": 0x7F800000, "BF16": 0x7F80, "F16": 0x7C00}


def all_finite(array: np.ndarray, block: int = 1 << 20) -> bool:
    """Whether no value is a NaN or an infinity; looks at a block at a time."""
    mask = np.dtype(f"u{array.dtype.itemsize}").type(_EXPONENTS[FORMATS[array.dtype]])
    bits = array.reshape(-1).view(mask.dtype)
    return not any(
        ((bits[start : start + block] & mask) == mask).any() for start in range(0, len(bits), block)
    )


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


def check_leaves(plan: Plan, leaves: Mapping[str, Any], *, subject: str) -> None:
    """Checks that leaves by path, or what tells their shapes, are exactly those of the plan.

    Raises:
      ConversionError: naming at once every missing, unexpected, mis-shaped and mis-typed leaf.
    """
    expected = plan.leaf_shapes
    both = [path for path in expected if path in leaves]
    problems = [
        *describe("missing", ((path, "") for path in expected if path not in leaves)),
        *describe("unexpected", ((path, "") for path in leaves if path not in expected)),
        *describe(
            "wrong shape:",
            (
                (path, f" got {list(leaves[path].shape)}, expected {list(expected[path])}")
                for path in both
                if tuple(leaves[path].shape) != expected[path]
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
