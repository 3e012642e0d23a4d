"""Rotary positions. Source: moshi/modules/rope.py."""

import math
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

RopeLayout = Literal["interleaved", "half"]


def apply_rope(
    x: Float[Array, "B T N H"],
    positions: Int[Array, "B T"],
    *,
    max_period: float,
    layout: RopeLayout = "interleaved",
) -> Float[Array, "B T N H"]:
    """Rotates the pairs of each head by position times frequency.

    Angles are products of f32 numbers with frequencies from `exp`, as in the reference: at position
    2999 a "better" formula would differ by 1e-4 in the cosine.

    Args:
      x: queries or keys.
      positions: absolute position of each token, a row at a time.
      max_period: longest period of a pair, in tokens.
      layout: pairs are neighbours (2i, 2i+1), or (i, i + H/2) with "half".
    """
    half = x.shape[-1] // 2
    exponents = jnp.arange(half, dtype=jnp.float32) * (-math.log(max_period) * 2 / x.shape[-1])
    angles = positions.astype(jnp.float32)[..., None, None] * jnp.exp(exponents)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    wide = x.astype(jnp.float32)
    if layout == "interleaved":
        real, imaginary = wide[..., 0::2], wide[..., 1::2]
    else:
        real, imaginary = wide[..., :half], wide[..., half:]
    turned = (real * cos - imaginary * sin, real * sin + imaginary * cos)
    if layout == "interleaved":
        out = jnp.stack(turned, axis=-1).reshape(x.shape)
    else:
        out = jnp.concatenate(turned, axis=-1)
    return out.astype(x.dtype)
