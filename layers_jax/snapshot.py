"""A pytree of arrays as a file, refused by whatever it does not belong to."""

import json
import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, TypeVar

import jax
import ml_dtypes  # noqa: F401  (teaches numpy bfloat16 before a file is read)
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from layers_jax.files import atomic_path

T = TypeVar("T")

FORMAT = "moshi-jax snapshot 1"


def save_tree(
    path: str | os.PathLike[str], tree: Any, owner: Mapping[str, Any], note: Mapping[str, Any]
) -> None:
    """Writes the arrays of `tree`; the file appears whole or not at all.

    Args:
      path: the file (safetensors).
      tree: arrays of the device or the host.
      owner: what the tree belongs to, as JSON values; a reader must say the same.
      note: JSON values to hand back to the reader.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in _named(tree).items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    header = {"format": FORMAT, "owner": json.dumps(dict(owner)), "note": json.dumps(dict(note))}
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, header)


def read_note(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The note of a file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no snapshot.
    """
    return json.loads(_open(path)[0]["note"])


def load_tree(path: str | os.PathLike[str], like: T, owner: Mapping[str, Any]) -> T:
    """Reads what `save_tree` wrote for the same owner, as arrays of the host.

    Args:
      path: the file.
      like: the expected structure, shapes and formats (abstract is enough).
      owner: what it must belong to.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no snapshot, or one of something else.
    """
    expected = _named(like)
    header, arrays = _open(path, set(expected))
    theirs, ours = json.loads(header["owner"]), json.loads(json.dumps(dict(owner)))
    different = [
        f"{key} {theirs.get(key)!r} instead of {ours.get(key)!r}"
        for key in sorted({*theirs, *ours})
        if theirs.get(key) != ours.get(key)
    ]
    if different:
        raise ValueError(
            f"{path} was saved with {'; '.join(different)}; load the checkpoint and the options "
            "that it was saved with"
        )
    for name, leaf in expected.items():
        found = arrays.get(name)
        if found is None or found.shape != leaf.shape or found.dtype != leaf.dtype:
            got = "nothing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise ValueError(
                f"{path} has {got} for {name}, expected {leaf.dtype}{list(leaf.shape)}; it was "
                "saved with another precision or version, or is damaged"
            )
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in expected])


def _open(
    path: str | os.PathLike[str], names: Set[str] = frozenset()
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The header, and those of the named arrays that are there."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"cannot read {path}: got no file there, expected a saved state")
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in names & set(file.keys())}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a saved state ({error}), expected a file that was written by save"
        ) from error
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {header.get('format')!r}, expected {FORMAT!r}: a file that was "
            "written by save of this version"
        )
    return header, arrays


def _named(tree: Any) -> dict[str, Any]:
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in pairs}
