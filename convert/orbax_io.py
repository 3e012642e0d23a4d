"""Our trees on disk: orbax checkpoints of plain nested dicts, a list entry a layer."""

from __future__ import annotations

from pathlib import Path

import orbax.checkpoint.experimental.v1 as ocp

from convert.errors import ConversionError
from layers_jax.functional import Params


def save_tree(path: Path, params: Params) -> None:
    """Writes a tree of arrays as a new orbax checkpoint folder."""
    ocp.save(path.absolute(), params)


def restore_tree(path: Path) -> Params:
    """Reads a checkpoint of `save_tree`: the same tree, leaves where and as they were saved.

    Raises:
      ConversionError: `path` is not a whole orbax checkpoint.
    """
    expected = "expected an orbax checkpoint as to-jax writes it; convert again"
    if not path.is_dir():
        raise ConversionError([f"got no such folder, {expected}"], subject=str(path))
    try:
        return ocp.load(path.absolute())
    except ValueError as error:  # orbax and tensorstore raise nothing more telling
        reason = " ".join(str(error).split())
        raise ConversionError([f"got {reason!r}, {expected}"], subject=str(path)) from error
