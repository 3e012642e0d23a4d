"""Causal attention over a window, with keys and values in a ring: one mask rule for both forms.

Source: `RingKVCache` in moshi/modules/transformer.py, and in NVIDIA's fork of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from layers_jax.precision import on_rows

# A TPU's matrix unit wants rows; a GPU would transpose the cache to give them to its own.
QUERY_ROWS = {"tpu": 8}

RingRule = Literal["kyutai", "personaplex"]
UNWRITTEN = -1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RingCache:
    """Keys and values of each row's last C tokens; a slot's age follows from the row's clock."""

    keys: jax.Array  # [B, N, C, H]
    values: jax.Array  # [B, N, C, H]

    @classmethod
    def zeros(
        cls, batch: int, heads: int, capacity: int, head_dim: int, dtype: DTypeLike
    ) -> "RingCache":
        """An empty ring. Two buffers, since each is donated on its own."""
        shape = (batch, heads, capacity, head_dim)
        return cls(keys=jnp.zeros(shape, dtype), values=jnp.zeros(shape, dtype))

    @property
    def capacity(self) -> int:
        """Number of slots C."""
        return self.keys.shape[2]

    def write(
        self,
        keys: Float[Array, "B T N H"],
        values: Float[Array, "B T N H"],
        offset: Int[Array, " B"],
        mask: Bool[Array, "B #T"],
    ) -> "RingCache":
        """The ring after T more tokens; what is outside `mask` leaves it as it was, bit for bit.

        A scatter at each row's own slots stays in place when the cache is donated. Rows that must
        not change are sent out of bounds and dropped, so nothing is read back to protect them.
        """
        length = keys.shape[1]
        slots = (offset[:, None] + jnp.arange(length)) % self.capacity
        slots = jnp.where(mask, slots, self.capacity)
        rows = jnp.arange(keys.shape[0])[:, None]

        def put(cache: jax.Array, new: jax.Array) -> jax.Array:
            return cache.at[rows, :, slots].set(new.astype(cache.dtype), mode="drop")

        return RingCache(keys=put(self.keys, keys), values=put(self.values, values))


def ring_positions(
    offset: Int[Array, " B"], length: int, capacity: int, rule: RingRule
) -> Int[Array, "B C"]:
    """Absolute position held by each slot after `length` tokens were written at `offset`.

    The fork counts from the end of the write instead of its last token: once the ring is full its
    oldest slot gets a position in the future, so causality hides it (window C - 1, not C).

    Returns:
      Positions, `UNWRITTEN` for slots that no token has reached.
    """
    slots = jnp.arange(capacity)
    end = (offset + length)[:, None]
    newest = end if rule == "personaplex" else end - 1
    positions = newest - (newest - slots) % capacity
    return jnp.where((slots < end) & (positions >= 0), positions, UNWRITTEN)


def visible(
    queries: Int[Array, "B T"], keys: Int[Array, "B C"], context: int | None
) -> Bool[Array, "B T C"]:
    """Whether a query sees a key: written, not in the future, less than `context` tokens back."""
    distance = queries[:, :, None] - keys[:, None, :]
    seen = (keys[:, None, :] != UNWRITTEN) & (distance >= 0)
    return seen if context is None else seen & (distance < context)


def attend(
    queries: Float[Array, "B T N R H"],
    keys: Float[Array, "B N C H"],
    values: Float[Array, "B N C H"],
    seen: Bool[Array, "B T C"],
    matmul: str,
) -> Float[Array, "B T N R H"]:
    """Softmax attention; R query heads share each of the N key heads; softmax in f32.

    A row that sees nothing (it is masked, its output unused) stays finite.
    """
    batch, length, heads, repeat, width = queries.shape

    def product(equation: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
        return lambda rows, cache: jnp.einsum(
            equation, rows, cache, precision=matmul, preferred_element_type=jnp.float32
        )

    # The rows M of these products are the R * T queries of a key head.
    rows = queries.transpose(0, 2, 3, 1, 4).reshape(batch, heads, repeat * length, width)
    scores = on_rows(QUERY_ROWS, product("bnmh,bnch->bnmc"), rows, keys, axis=2)
    scores = scores.reshape(batch, heads, repeat, length, -1) * width**-0.5
    scores = jnp.where(seen[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype).reshape(*rows.shape[:3], -1)
    out = on_rows(QUERY_ROWS, product("bnmc,bnch->bnmh"), weights, values, axis=2)
    out = out.reshape(batch, heads, repeat, length, width).transpose(0, 3, 1, 2, 4)
    return out.astype(queries.dtype)
