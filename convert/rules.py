"""Two-way rule tables: which PyTorch tensor holds which of our parameters, and how.

A table is a list of `Rule`; the same table reads a PyTorch file into our tree and writes our tree
back. Paths are dotted, lists by index: `temporal.layers.3.norm1.scale`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from string import Formatter
from typing import Any

import jax
import numpy as np

from convert.errors import ConversionError, describe
from convert.safetensors_io import FLOATS, TensorInfo
from convert.transforms import Shape, torch_shape

Part = tuple[int, int]  # (i, n): the i-th of n equal blocks of rows; (0, 1) is the whole


@dataclass(frozen=True)
class Rule:
    """One line of a table.

    An index that occurs on one side only numbers equal row blocks of the tensor on the other side:
    `{s}` only in `path` means that one PyTorch tensor holds the rows of all s, one after the other.

    Attributes:
      torch: the released name of the PyTorch tensor, with indices such as `{l}`.
      path: our path, with the same indices.
      transform: name of the permutation of values in `transforms.TRANSFORMS`.
      counts: how many values each index takes.
      also: further names in use for the same values, accepted on reading.
    """

    torch: str
    path: str
    transform: str = "same"
    counts: Mapping[str, int] = field(default_factory=dict)
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Derived:
    """A leaf that is computed from other leaves once on reading, and never written.

    Attributes:
      path: our path, with indices.
      inputs: paths of the leaves it is computed from.
      compute: from their values to its value.
      counts: how many values each index takes.
    """

    path: str
    inputs: tuple[str, ...]
    compute: Callable[..., np.ndarray]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Link:
    """A rule at given indices: one block of a PyTorch tensor is one block of a leaf."""

    key: str
    key_part: Part
    path: str
    path_part: Part
    transform: str


@dataclass(frozen=True)
class Plan:
    """All links of a conversion, seen from both sides, with the shapes of both sides."""

    leaves: dict[str, list[Link]]
    tensors: dict[str, list[Link]]
    derived: dict[str, tuple[tuple[str, ...], Callable[..., np.ndarray]]]
    leaf_shapes: dict[str, Shape]
    tensor_shapes: dict[str, Shape]


def dotted(keys: Any) -> str:
    """The path of a leaf as rules write it, out of JAX's key path."""
    return jax.tree_util.keystr(keys, simple=True, separator=".")


def flatten(tree: Any) -> dict[str, Any]:
    """Dotted path -> leaf, in the order of `jax.tree.leaves`."""
    return {dotted(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def plan(
    rules: Sequence[Rule | Derived],
    leaves: Mapping[str, Shape],
    stored: Mapping[str, TensorInfo] | None = None,
    *,
    subject: str = "checkpoint",
) -> Plan:
    """Matches a table with our leaves and, when given, with the tensors of a file.

    Args:
      rules: the table of the model.
      leaves: shape of each leaf of our tree (abstract is enough).
      stored: what a file holds; None plans for the released names.
      subject: what to call the file in an error.

    Raises:
      ConversionError: naming at once every missing, unexpected, mis-shaped and mis-typed tensor.
      ValueError: the table and our tree disagree (a defect of this package, not of the file).
    """
    links = [link for rule in rules if isinstance(rule, Rule) for link in _expand(rule, stored)]
    derived = {
        rule.path.format(**at): (tuple(name.format(**at) for name in rule.inputs), rule.compute)
        for rule in rules
        if isinstance(rule, Derived)
        for at in _indices(rule.counts)
    }
    by_path, by_key = _group(links, "path"), _group(links, "key")
    _check_leaves(by_path, derived, leaves)

    shapes: dict[str, Shape] = {}
    for key, blocks in by_key.items():
        found = {_block_shape(link, leaves[link.path]) for link in blocks}
        if len(found) != 1:
            raise ValueError(f"rules give {key} row blocks of several shapes: {sorted(found)}")
        (shape,) = found
        count = blocks[0].key_part[1]
        shapes[key] = (count * shape[0], *shape[1:]) if count > 1 else shape
    if stored is not None:
        _check_stored(shapes, stored, subject)
    return Plan(by_path, by_key, derived, dict(leaves), shapes)


def leaf_block(shape: Shape, part: Part) -> Shape:
    """Shape of one of n row blocks of a leaf."""
    return (shape[0] // part[1], *shape[1:])


def _indices(counts: Mapping[str, int]) -> Iterator[dict[str, int]]:
    for values in product(*(range(count) for count in counts.values())):
        yield dict(zip(counts, values, strict=True))


def _expand(rule: Rule, stored: Mapping[str, TensorInfo] | None) -> list[Link]:
    """The links of a rule, under the name that the file uses (the released one in doubt)."""
    best = candidate = _links(rule, rule.torch)
    if stored is not None:
        hits = sum(link.key in stored for link in best)
        for name in rule.also:
            candidate = _links(rule, name)
            if (count := sum(link.key in stored for link in candidate)) > hits:
                best, hits = candidate, count
    return best


def _links(rule: Rule, name: str) -> list[Link]:
    in_name, in_path = _hidden_index(rule, name), _hidden_index(rule, rule.path)
    return [
        Link(
            name.format(**at),
            (at[in_name], rule.counts[in_name]) if in_name else (0, 1),
            rule.path.format(**at),
            (at[in_path], rule.counts[in_path]) if in_path else (0, 1),
            rule.transform,
        )
        for at in _indices(rule.counts)
    ]


def _hidden_index(rule: Rule, pattern: str) -> str | None:
    """The index of a rule that `pattern` lacks: it numbers row blocks there."""
    present = {name for _, name, _, _ in Formatter().parse(pattern)}
    hidden = [index for index in rule.counts if index not in present]
    if len(hidden) > 1:
        raise ValueError(f"rule {rule.torch}: {pattern} hides several indices: {hidden}")
    return hidden[0] if hidden else None


def _group(links: list[Link], side: str) -> dict[str, list[Link]]:
    groups: dict[str, list[Link]] = defaultdict(list)
    for link in links:
        groups[getattr(link, side)].append(link)
    return dict(groups)


def _block_shape(link: Link, leaf: Shape) -> Shape:
    return torch_shape(link.transform, leaf_block(leaf, link.path_part))


def _check_leaves(
    by_path: Mapping[str, list[Link]], derived: Mapping[str, Any], leaves: Mapping[str, Shape]
) -> None:
    """Every leaf comes from exactly one rule, and every block of it from exactly one link."""
    claimed = list(by_path) + list(derived)
    problems = [
        *describe("no rule for", ((path, "") for path in leaves if path not in set(claimed))),
        *describe("no leaf for", ((path, "") for path in claimed if path not in leaves)),
        *describe("two rules for", ((path, "") for path in by_path if path in derived)),
    ]
    for path, links in by_path.items():
        parts = sorted(link.path_part for link in links)
        if parts != [(i, parts[0][1]) for i in range(parts[0][1])]:
            problems.append(f"two rules for {path}")
        elif path in leaves and parts[0][1] > 1 and leaves[path][0] % parts[0][1]:
            problems.append(f"{path} {list(leaves[path])} does not split into {parts[0][1]} blocks")
    if problems:
        raise ValueError(f"the conversion table does not fit the model: {'; '.join(problems)}")


def _check_stored(
    expected: Mapping[str, Shape], stored: Mapping[str, TensorInfo], subject: str
) -> None:
    allowed = ", ".join(FLOATS)
    misshaped, mistyped = [], []
    for key, shape in expected.items():
        if key not in stored:
            continue
        got = stored[key]
        if got.shape != shape:
            hint = " (transposed)" if got.shape == shape[::-1] else ""
            misshaped.append((key, f" got {list(got.shape)}, expected {list(shape)}{hint}"))
        if got.format not in FLOATS:
            mistyped.append((key, f" got {got.format}, expected one of {allowed}"))
    problems = [
        *describe("missing", ((key, "") for key in expected if key not in stored)),
        *describe("unexpected", ((key, "") for key in stored if key not in expected)),
        *describe("wrong shape:", misshaped),
        *describe("wrong dtype:", mistyped),
    ]
    if problems:
        problems.append("check that config.json describes this file")
        raise ConversionError(problems, subject=subject)
