"""Float32 master weights to the format the model computes in: to the nearest, or at random.

An AdamW step of 2e-7 is far below half a bf16 step of a typical weight, so weights rounded to the
nearest stand still until the master has crossed an edge. Rounded at random, up with the probability
of the fraction that is cut off, they follow the master in the mean. The draw is a hash of (seed,
update, leaf, element), so it does not depend on how the leaf is divided among devices, and the
rollouts of an epoch, its old log-probs and its first update see the same weights.
"""

import zlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int, UInt32

from grpo.layout import Layout

Rounding = Literal["nearest", "stochastic"]
Rounder = Callable[[Any, Any], Any]  # (master weights, updates done) -> weights


def make_rounder(layout: Layout, dtype: DTypeLike, rounding: Rounding, seed: int) -> Rounder:
    """Master weights to weights in `dtype`, inside a mapped program.

    Raises:
        ValueError: random rounding to something other than bf16.
    """
    if rounding == "nearest":
        return lambda master, step: jax.tree.map(lambda leaf: leaf.astype(dtype), master)
    if dtype != jnp.bfloat16:
        raise ValueError(
            f"stochastic rounding to {jnp.dtype(dtype)}, expected bfloat16; use --precision bf16 "
            "or --weight-rounding nearest"
        )

    def rounder(master: Any, step: Array) -> Any:
        def leaf(path: Any, cut: int, block: Array) -> Array:
            name = zlib.crc32(jax.tree_util.keystr(path).encode())
            key = mix(mix(jnp.uint32(seed) ^ jnp.uint32(name)) + step.astype(jnp.uint32))
            return stochastic_round(block, key, _index(block.shape, cut, layout))

        return jax.tree_util.tree_map_with_path(leaf, layout.cuts, master)

    return rounder


def stochastic_round(
    x: Float[Array, "..."], key: UInt32[Array, ""], index: UInt32[Array, "..."]
) -> Float[Array, "..."]:
    """Float32 to bf16, up or down so that the mean over keys is `x`; not-finite values as they are.

    Args:
        x: values.
        key: of the draw.
        index: a number an element, equal ones get equal draws.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    noise = mix(mix(index) ^ key) & jnp.uint32(0xFFFF)
    cut = (bits + noise) & jnp.uint32(0xFFFF0000)
    rounded = jax.lax.bitcast_convert_type(cut, jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)


def _index(shape: tuple[int, ...], cut: int, layout: Layout) -> UInt32[Array, "..."]:
    """Position of every element of a block in the whole leaf, modulo 2**32."""
    index, stride = jnp.zeros(shape, jnp.uint32), 1
    for dim in reversed(range(len(shape))):
        at = jax.lax.broadcasted_iota(jnp.uint32, shape, dim)
        if dim == cut:
            device: Int[Array, ""] = jax.lax.axis_index(layout.mesh.axes)
            at = at + device.astype(jnp.uint32) * jnp.uint32(shape[dim])
        index = index + at * jnp.uint32(stride % 2**32)
        stride *= shape[dim] * (layout.mesh.size if dim == cut else 1)
    return index


def mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """The finaliser of MurmurHash3: every bit of the result depends on every bit of `x`."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
