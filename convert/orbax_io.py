"""Our trees on disk: orbax checkpoints of plain nested dicts, a list entry a layer.

A tree is written and read in groups of leaves, so that a checkpoint of any size passes through
little memory, and restored onto any mesh: every host reads the pieces that its devices hold.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp

from convert.ahead import ahead
from convert.errors import ConversionError
from convert.rules import dotted
from layers_jax.functional import Params

# Leaves are written and read together until they have so many bytes.
GROUP_BYTES = 128 << 20
# The unit of a read: a device that holds an eighth of a matrix does not read all of it.
CHUNK_BYTES = 32 << 20

_EXPECTED = "expected an orbax checkpoint as to-jax writes it; convert again"


class _Entries:
    """Some entries of a list: what a group of leaves has of our lists of layers."""

    def __init__(self, items: dict[int, Any]):
        self.items = items


jax.tree_util.register_pytree_with_keys(
    _Entries,
    lambda some: (
        tuple((jax.tree_util.SequenceKey(index), value) for index, value in some.items.items()),
        tuple(some.items),
    ),
    lambda indices, values: _Entries(dict(zip(indices, values, strict=True))),
)


def _context() -> ocp.Context:
    context = ocp.Context()
    saving = context.array.saving
    saving.use_compression = False  # weights hardly shrink, and trying costs more than writing
    saving.storage_options.chunk_byte_size = CHUNK_BYTES
    context.memory.deepcopy_host_arrays = False  # nobody changes a leaf once it is made
    return context


def save_tree(path: Path, params: Params) -> None:
    """Writes a tree of arrays as a new orbax checkpoint folder."""
    save_leaves(path, jax.tree_util.tree_leaves_with_path(params))


def save_leaves(path: Path, leaves: Iterable[tuple[Any, np.ndarray]]) -> None:
    """Writes leaves as they come, each with its key path in the tree.

    While a group is being written the next ones are made: three are in memory.
    """
    with _context():
        with contextlib.ExitStack() as writing:  # also waited for when making a leaf fails
            for group in _groups(ahead(leaves, lambda entry: entry[1].nbytes, GROUP_BYTES)):
                writing.close()
                response = ocp.partial.save_async(path.absolute(), _subtree(group))
                writing.callback(response.result)
        ocp.partial.finalize(path.absolute())


def _groups(leaves: Iterable[tuple[Any, np.ndarray]]) -> Iterator[list[tuple[Any, np.ndarray]]]:
    group, size = [], 0
    for keys, leaf in leaves:
        if group and size + leaf.nbytes > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append((keys, leaf))
        size += leaf.nbytes
    if group:
        yield group


def _subtree(group: list[tuple[Any, np.ndarray]]) -> Any:
    """The part of the tree that holds some leaves."""
    root: dict[Any, Any] = {}
    for keys, leaf in group:
        node = root
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = leaf
    return _as_nodes(root)


def _as_nodes(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if all(isinstance(key, jax.tree_util.SequenceKey) for key in node):
        return _Entries({key.idx: _as_nodes(value) for key, value in node.items()})
    return {key.key: _as_nodes(value) for key, value in node.items()}


def restore_tree(path: Path, abstract: Params | None = None) -> Params:
    """Reads a checkpoint of `save_tree`.

    Args:
      path: the folder.
      abstract: the tree as `jax.ShapeDtypeStruct`s with shardings: leaves become arrays on those
        devices, in that format, and each host reads what its devices hold. None gives numpy arrays
        as they were saved.

    Raises:
      ConversionError: `path` is not a whole orbax checkpoint, or not one of such a tree.
    """
    return _load(path, abstract)


class StoredLeaves(Mapping[str, np.ndarray]):
    """The leaves of a checkpoint by dotted path, read in groups and dropped when others come.

    Args:
      path: the folder.
      order: the paths in the order in which they will be asked for; another order is slower.

    Raises:
      ConversionError: `path` is not a whole orbax checkpoint.
    """

    def __init__(self, path: Path, order: Iterable[str] = ()):
        self.path, self._tree = path, tree_shapes(path)
        pairs = jax.tree_util.tree_leaves_with_path(self._tree)
        self._keys = {dotted(keys): keys for keys, _ in pairs}
        self.shapes = {dotted(keys): leaf for keys, leaf in pairs}
        self._group_of: dict[str, list[str]] = {}
        self._loaded: dict[str, np.ndarray] = {}
        self.arrange(order)

    def arrange(self, order: Iterable[str]) -> None:
        """Groups the leaves in the order in which they will be asked for."""
        size = GROUP_BYTES
        group: list[str] = []
        self._group_of = {}
        for name in dict.fromkeys((*(n for n in order if n in self.shapes), *self.shapes)):
            leaf = self.shapes[name]
            nbytes = int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize
            if size + nbytes > GROUP_BYTES:
                group, size = [], 0
            group.append(name)
            size += nbytes
            self._group_of[name] = group

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._loaded:
            group = self._group_of[name]
            self._loaded = {}  # before the next is read: two groups at a time are too many
            wanted = {self._keys[member]: member for member in group}
            abstract = jax.tree_util.tree_map_with_path(
                lambda keys, leaf: leaf if tuple(keys) in wanted else ocp.PLACEHOLDER,
                self._tree,
            )
            tree = _load(self.path, abstract)
            self._loaded = {
                wanted[tuple(keys)]: leaf
                for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)
                if tuple(keys) in wanted
            }
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def tree_shapes(path: Path) -> Any:
    """Shape and format of each leaf of a checkpoint, without reading it.

    Raises:
      ConversionError: `path` is not a whole orbax checkpoint.
    """
    if not path.is_dir():
        raise ConversionError([f"got no such folder, {_EXPECTED}"], subject=str(path))
    try:
        return ocp.metadata(path.absolute()).metadata
    except (ValueError, OSError, KeyError) as error:
        raise _refusal(path, error) from error


def _load(path: Path, abstract: Any) -> Any:
    if not path.is_dir():
        raise ConversionError([f"got no such folder, {_EXPECTED}"], subject=str(path))
    try:
        return ocp.load(path.absolute(), abstract)
    except (ValueError, OSError, KeyError) as error:  # orbax raises nothing more telling
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> ConversionError:
    reason = " ".join(str(error).split())
    return ConversionError([f"got {reason!r}, {_EXPECTED}"], subject=str(path))
