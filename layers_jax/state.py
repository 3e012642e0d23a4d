"""The row rules of every state: a masked row is untouched, a reset row is fresh, rows are separate.

A state is a pytree whose array leaves all have the batch as first axis.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

State = TypeVar("State")


def masked_update(mask: Bool[Array, " B"], new: State, old: State) -> State:
    """`new` in the rows where `mask` is True, `old`, bit for bit, in the others."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)


def reset_rows(mask: Bool[Array, " B"], fresh: State, state: State) -> State:
    """`fresh` in the rows where `mask` is True: nothing of their past, NaN included, remains."""
    return masked_update(mask, fresh, state)


def select_rows(state: State, rows: Int[Array, " N"]) -> State:
    """The state of the given rows, in order; a row may be repeated (one prefix, G rollouts)."""
    return jax.tree.map(lambda leaf: leaf[rows], state)
