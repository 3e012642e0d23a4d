"""The two feed-forward blocks. Source: moshi/modules/gating.py, moshi/modules/transformer.py."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from layers_jax.linear import normal_init
from layers_jax.precision import Precision


class GatedMlp(nnx.Module):
    """`down(silu(gate(x)) * up(x))`, gate and up in one kernel [D, 2, F]; no biases."""

    def __init__(self, dim: int, hidden: int, *, precision: Precision, rngs: nnx.Rngs):
        self.gate_up = normal_init(rngs, (dim, 2, hidden), precision, fan_in=dim)
        self.down = normal_init(rngs, (hidden, dim), precision, fan_in=hidden)
        self.precision = precision

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """`x[..., D]` -> the same shape."""
        both = self.precision.dot(x, self.gate_up[...])
        return self.precision.dot(jax.nn.silu(both[..., 0, :]) * both[..., 1, :], self.down[...])


class Mlp(nnx.Module):
    """`down(gelu(up(x)))` with the exact (erf) GELU; no biases."""

    def __init__(self, dim: int, hidden: int, *, precision: Precision, rngs: nnx.Rngs):
        self.up = normal_init(rngs, (dim, hidden), precision, fan_in=dim)
        self.down = normal_init(rngs, (hidden, dim), precision, fan_in=hidden)
        self.precision = precision

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """`x[..., D]` -> the same shape."""
        hidden = jax.nn.gelu(self.precision.dot(x, self.up[...]), approximate=False)
        return self.precision.dot(hidden, self.down[...])
