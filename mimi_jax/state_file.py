"""Sessions put aside and taken up again: the codec's state as one safetensors file."""

import os
from typing import Any

import jax
import jax.numpy as jnp

from layers_jax.snapshot import load_tree, read_note, save_tree
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
    save_tree(path, state, _owner(mimi.config), {"batch": len(state.encoder.offset)})


def load_state(path: str | os.PathLike[str], mimi: Mimi) -> MimiState:
    """The state that `save_state` wrote; sessions go on as if they had never stopped.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not such a file, or of another codec.
    """
    batch = read_note(path).get("batch")
    if not isinstance(batch, int):
        raise ValueError(f"{path} says no batch, expected a codec state written by save_state")
    shapes = jax.eval_shape(lambda: init_state(mimi, batch))
    return jax.tree.map(jnp.asarray, load_tree(path, shapes, _owner(mimi.config)))


def _owner(config: MimiConfig) -> dict[str, Any]:
    """What decides the meaning of a state: all shapes and the ring rule, not the codebooks used."""
    return {**config.to_dict(), "ring": config.transformer.ring}
