"""Sessions put aside and taken up again: the codec's state as one safetensors file."""

import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from layers_jax import atomic_path
from mimi_jax.codec import init_state
from mimi_jax.config import MimiConfig
from mimi_jax.model import Mimi
from mimi_jax.state import MimiState

__all__ = ["load_state", "save_state"]


def save_state(path: str | os.PathLike[str], mimi: Mimi, state: MimiState) -> None:
    """Writes the state of a batch of sessions, completely or not at all.

    Args:
      path: the file.
      mimi: the codec it is a state of; its shape goes into the header.
      state: still usable afterwards.
    """
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in _named(state).items()}
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, {"mimi_state": _fingerprint(mimi.config)})


def load_state(path: str | os.PathLike[str], mimi: Mimi) -> MimiState:
    """The state that `save_state` wrote; sessions go on as if they had never stopped.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not such a file, or of another codec.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"cannot read {path}: got no file there, expected a codec state")
    try:
        with safe_open(path, "numpy") as file:
            written = (file.metadata() or {}).get("mimi_state")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a codec state: {error}") from error
    if written != _fingerprint(mimi.config):
        raise ValueError(
            f"{path} holds {'no codec state' if written is None else 'the state of another codec'},"
            " expected one of this codec's shape and ring rule; load the codec it was saved from"
        )
    batch = len(arrays["encoder.offset"])
    shapes = jax.eval_shape(lambda: init_state(mimi, batch))
    leaves = [jnp.asarray(arrays[name]) for name in _named(shapes)]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _named(state: Any) -> dict[str, Any]:
    """Leaves of a state, arrays or shapes, by path and in the order of the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _fingerprint(config: MimiConfig) -> str:
    """What decides the meaning of a state: all shapes and the ring rule, not the codebooks used."""
    return json.dumps([config.to_dict(), config.transformer.ring], sort_keys=True)
