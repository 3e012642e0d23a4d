"""Causal attention over a window, with keys and values in a ring: one mask rule for both forms.

Source: `RingKVCache` in moshi/modules/transformer.py, and in NVIDIA's fork of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
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


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NewTokens:
    """T tokens a row on their way into a ring of C slots."""

    queries: jax.Array  # [B, T, N, R, H]
    keys: jax.Array  # [B, T, N, H]
    values: jax.Array  # [B, T, N, H]
    offset: jax.Array  # [B], position of the first
    kept: jax.Array  # [B, T or 1], which of them are written
    seen: jax.Array  # [B, T, C + T], which slots and which of each other they see


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


def positions_left(
    offset: Int[Array, " B"], length: int, capacity: int, rule: RingRule
) -> Int[Array, "B C"]:
    """`ring_positions` of the slots that writing `length` tokens leaves alone.

    Returns:
      Positions, `UNWRITTEN` also for the slots that are written to.
    """
    taken = (jnp.arange(capacity) - offset[:, None]) % capacity < length
    return jnp.where(taken, UNWRITTEN, ring_positions(offset, length, capacity, rule))


def visible(
    queries: Int[Array, "B T"], keys: Int[Array, "B C"], context: int | None
) -> Bool[Array, "B T C"]:
    """Whether a query sees a key: written, not in the future, less than `context` tokens back."""
    distance = queries[:, :, None] - keys[:, None, :]
    seen = (keys[:, None, :] != UNWRITTEN) & (distance >= 0)
    return seen if context is None else seen & (distance < context)


def attend(
    queries: Float[Array, "B T N R H"],
    parts: Sequence[tuple[Float[Array, "B N _ H"], Float[Array, "B N _ H"]]],
    seen: Bool[Array, "B T C"],
    matmul: str,
) -> Float[Array, "B T N R H"]:
    """Softmax attention; R query heads share each of the N key heads; softmax in f32.

    A row that sees nothing (it is masked, its output unused) stays finite.

    Args:
      queries: of T tokens.
      parts: keys and values in pieces, C tokens in all; joined they would be copied.
      seen: which of the C tokens a query sees.
      matmul: precision of the products.
    """
    batch, length, heads, repeat, width = queries.shape

    def product(equation: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
        return lambda rows, cache: jnp.einsum(
            equation, rows, cache, precision=matmul, preferred_element_type=jnp.float32
        )

    # The rows M of these products are the R * T queries of a key head.
    rows = queries.transpose(0, 2, 3, 1, 4).reshape(batch, heads, repeat * length, width)

    def scores_of(keys: jax.Array, seen: jax.Array) -> jax.Array:
        scores = on_rows(QUERY_ROWS, product("bnmh,bnch->bnmc"), rows, keys, axis=2)
        scores = scores.reshape(batch, heads, repeat, length, -1) * width**-0.5
        scores = jnp.where(seen[:, None, None], scores, jnp.finfo(jnp.float32).min)
        return scores.reshape(batch, heads, repeat * length, -1)

    ends = list(accumulate(keys.shape[2] for keys, _ in parts))
    masks = jnp.split(seen, ends[:-1], axis=-1)
    scores = [scores_of(keys, mask) for (keys, _), mask in zip(parts, masks, strict=True)]
    # One softmax over all parts.
    highest = reduce(jnp.maximum, (jnp.max(part, axis=-1, keepdims=True) for part in scores))
    weights = [jnp.exp(part - jax.lax.stop_gradient(highest)) for part in scores]
    total = reduce(jnp.add, (jnp.sum(part, axis=-1, keepdims=True) for part in weights))
    shares = [
        on_rows(
            QUERY_ROWS,
            product("bnmc,bnch->bnmh"),
            (part / total).astype(values.dtype),
            values,
            axis=2,
        )
        for part, (_, values) in zip(weights, parts, strict=True)
    ]
    out = reduce(jnp.add, shares)
    out = out.reshape(batch, heads, repeat, length, width).transpose(0, 3, 1, 2, 4)
    return out.astype(queries.dtype)


def attend_and_write(
    new: NewTokens, cache: RingCache, *, matmul: str
) -> tuple[Float[Array, "B T N R H"], RingCache]:
    """Attention to the ring as it is and to the T new tokens; then these are written to it.

    A ring that is read after it was written is there twice, and XLA for CPUs copies it for that; a
    TPU writes a ring back from its on-chip memory.
    """
    # New ones go through the format of the cache, as they will when they are read from it.
    keys, values = new.keys.astype(cache.keys.dtype), new.values.astype(cache.values.dtype)
    compute = new.queries.dtype
    parts = [
        (one.astype(compute), other.astype(compute))
        for one, other in (
            (cache.keys, cache.values),
            (keys.swapaxes(1, 2), values.swapaxes(1, 2)),
        )
    ]
    heads = attend(new.queries, parts, new.seen, matmul)
    keys, values = _after(keys, heads[..., 0, :]), _after(values, heads[..., 0, :])
    return heads, cache.write(keys, values, new.offset, new.kept)


def write_and_attend(
    new: NewTokens, cache: RingCache, *, matmul: str
) -> tuple[Float[Array, "B T N R H"], RingCache]:
    """The same for T <= C in the other order: fewer kernels, which is what counts on a GPU.

    The output of a row whose tokens are not kept differs, and is used by nobody.
    """
    cache = cache.write(new.keys, new.values, new.offset, new.kept)
    # A slot that holds a new token now is seen where that token was.
    slots = jnp.arange(cache.capacity)
    age = (slots - new.offset[:, None]) % cache.capacity
    column = jnp.where(age < new.keys.shape[1], cache.capacity + age, slots)
    seen = jnp.take_along_axis(new.seen, column[:, None], axis=-1)
    compute = new.queries.dtype
    parts = [(cache.keys.astype(compute), cache.values.astype(compute))]
    return attend(new.queries, parts, seen, matmul), cache


def _after(new: Float[Array, "B T N H"], read: Float[Array, "B T N H"]) -> Float[Array, "B T N H"]:
    """`new`, not before `read` is there: what is written to a ring, not before it was read.

    XLA updates a buffer in place if nobody needs its old form any more. For a CPU an operand is the
    only proof of that; barriers are gone by the time it asks.
    """
    never = jnp.finfo(read.dtype).max  # attention gives averages of values; none is that large
    return jax.lax.platform_dependent(
        new,
        read,
        cpu=lambda new, read: jnp.where(read == never, 0, new),
        default=lambda new, _: new,
    )
