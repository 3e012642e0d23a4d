"""The two feed-forward blocks. Source: moshi/modules/gating.py, moshi/modules/transformer.py."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from layers_jax.linear import Linear
from layers_jax.lora import LoraConfig
from layers_jax.precision import Precision


class GatedMlp(nnx.Module):
    """`down(silu(gate(x)) * up(x))`, gate and up in one kernel [D, 2, F]; no biases."""

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        lora: LoraConfig | None = None,
        precision: Precision,
        rngs: nnx.Rngs,
    ):
        self.gate_up = Linear(dim, (2, hidden), lora=lora, precision=precision, rngs=rngs)
        self.down = Linear(hidden, dim, lora=lora, precision=precision, rngs=rngs)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """`x[..., D]` -> the same shape."""
        both = self.gate_up(x)
        return self.down(jax.nn.silu(both[..., 0, :]) * both[..., 1, :])


class Mlp(nnx.Module):
    """`down(gelu(up(x)))` with the exact (erf) GELU; no biases."""

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        lora: LoraConfig | None = None,
        precision: Precision,
        rngs: nnx.Rngs,
    ):
        self.up = Linear(dim, hidden, lora=lora, precision=precision, rngs=rngs)
        self.down = Linear(hidden, dim, lora=lora, precision=precision, rngs=rngs)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """`x[..., D]` -> the same shape."""
        return self.down(jax.nn.gelu(self.up(x), approximate=False))
