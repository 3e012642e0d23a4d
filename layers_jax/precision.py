"""Which number format each part of a model uses: an argument, never a global."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

MatmulPrecision = Literal["default", "high", "highest"]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Formats of one model. Norm statistics, softmax, RoPE and log-probs are f32 whatever it says.

    Attributes:
      params: format in which parameters are held.
      compute: format of activations between operations.
      norm: format in which norm statistics are taken.
      logits: format in which logits are returned.
      cache: format of keys and values.
      matmul: passes a TPU spends on an f32 product; "default" there means one bf16 pass, which
        flips codec codes and greedy tokens, so the f32 preset asks for "highest".
    """

    params: DTypeLike = jnp.float32
    compute: DTypeLike = jnp.float32
    norm: DTypeLike = jnp.float32
    logits: DTypeLike = jnp.float32
    cache: DTypeLike = jnp.float32
    matmul: MatmulPrecision = "highest"

    @classmethod
    def f32(cls) -> "Precision":
        """Everything in f32 at the highest matmul precision: the setting of token parity."""
        return cls()

    @classmethod
    def bf16(cls) -> "Precision":
        """Weights, activations and caches in bf16, products accumulated in f32."""
        bf16 = jnp.bfloat16
        return cls(params=bf16, compute=bf16, cache=bf16, matmul="default")

    def dot(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """`x[..., D] @ kernel[D, ...]` accumulated in f32, returned in the compute format.

        Trailing kernel axes are flattened for the product: a fused projection is one matmul, and
        without the explicit f32 accumulation XLA may pick a layout that copies the weights.
        """
        flat = kernel.reshape(kernel.shape[0], -1).astype(self.compute)
        product = jnp.matmul(
            x.astype(self.compute),
            flat,
            precision=self.matmul,
            preferred_element_type=jnp.float32,
        )
        return product.astype(self.compute).reshape(*x.shape[:-1], *kernel.shape[1:])
