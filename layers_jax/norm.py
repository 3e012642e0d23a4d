"""Norms, statistics in f32.

Source: `_rms_norm`, `create_norm_fn` in moshi/modules/transformer.py.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from layers_jax.precision import Precision


class RMSNorm(nnx.Module):
    """`x * (scale / rms(x))`: the scale meets the f32 factor before any rounding, as in Helium."""

    epsilon = 1e-8

    def __init__(self, dim: int, *, precision: Precision, rngs: nnx.Rngs):
        del rngs
        self.scale = nnx.Param(jnp.ones((dim,), precision.params))
        self.precision = precision

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """`x[..., D]` -> the same shape in the compute format."""
        wide = x.astype(self.precision.norm)
        variance = self.epsilon + jnp.mean(wide**2, axis=-1, keepdims=True)
        factor = self.scale[...].astype(self.precision.norm) * jax.lax.rsqrt(variance)
        return (wide * factor).astype(self.precision.compute)


class LayerNorm(nnx.Module):
    """Mean and variance normalisation with scale and bias, epsilon 1e-5."""

    epsilon = 1e-5

    def __init__(self, dim: int, *, precision: Precision, rngs: nnx.Rngs):
        del rngs
        self.scale = nnx.Param(jnp.ones((dim,), precision.params))
        self.bias = nnx.Param(jnp.zeros((dim,), precision.params))
        self.precision = precision

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """`x[..., D]` -> the same shape in the compute format."""
        wide = x.astype(self.precision.norm)
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        variance = jnp.mean(centred**2, axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + self.epsilon)
        return (normed * self.scale[...] + self.bias[...]).astype(self.precision.compute)


class LayerScale(nnx.Module):
    """A learnt factor a channel on a residual branch. Source: arXiv 2103.17239."""

    def __init__(self, dim: int, initial: float, *, precision: Precision, rngs: nnx.Rngs):
        del rngs
        self.scale = nnx.Param(jnp.full((dim,), initial, precision.params))

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """`x[..., D] * scale[D]`."""
        return (x * self.scale[...]).astype(x.dtype)
