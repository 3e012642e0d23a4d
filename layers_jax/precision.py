"""Which number format each part of a model uses: an argument, never a global."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

# With fewer rows a TPU multiplies on its vector unit and first widens the whole matrix in memory, a
# GPU writes a single row's products out before it adds them up. A CPU is fastest without padding.
MATRIX_ROWS = {"tpu": 8, "cuda": 2}

# A CPU repacks the kernel before it multiplies. For few rows that takes longer than the product,
# least if the part that is packed at once (of so many rows of the kernel) stays in a core's cache.
CHUNKED_ROWS, CHUNK = 16, 64

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
      int8: matrices are held as int8 with an f32 scale an output channel, whatever `params` says.
      matmul: passes a TPU spends on an f32 product; "default" there means one bf16 pass, which
        flips codec codes and greedy tokens, so the f32 preset asks for "highest".
    """

    params: DTypeLike = jnp.float32
    compute: DTypeLike = jnp.float32
    norm: DTypeLike = jnp.float32
    logits: DTypeLike = jnp.float32
    cache: DTypeLike = jnp.float32
    int8: bool = False
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

    @classmethod
    def int8_weights(cls) -> "Precision":
        """As `bf16`, with matrices in int8: half the bytes a frame must read."""
        return replace(cls.bf16(), int8=True)

    def dot(self, x: jax.Array, kernel: jax.Array, scale: jax.Array | None = None) -> jax.Array:
        """`x[..., D] @ kernel[D, ...]` accumulated in f32, returned in the compute format.

        The kernel is not flattened to a matrix first: with several output axes that would be a
        copy of it on a TPU. Nor is the f32 accumulation left to XLA, which would choose another
        layout for the weights and copy them too.

        Args:
          x: activations.
          kernel: a matrix; integers are exact in the compute format and widened inside the product.
          scale: of each output channel [...], applied to the f32 sums.
        """

        def product(rows: jax.Array, kernel: jax.Array) -> jax.Array:
            return jnp.tensordot(
                rows,
                kernel.astype(self.compute),
                axes=1,
                precision=self.matmul,
                preferred_element_type=jnp.float32,
            )

        def in_chunks(rows: jax.Array, kernel: jax.Array) -> jax.Array:
            products = jnp.einsum(
                "rcd,cd...->cr...",
                rows.reshape(len(rows), -1, CHUNK),
                kernel.reshape(-1, CHUNK, *kernel.shape[1:]),
                precision=self.matmul,
                preferred_element_type=jnp.float32,
            )
            return products.sum(axis=0)

        rows = x.astype(self.compute).reshape(-1, x.shape[-1])
        chunked = (
            len(rows) <= CHUNKED_ROWS
            and kernel.dtype == jnp.float32
            and len(kernel) > CHUNK
            and len(kernel) % CHUNK == 0
        )
        cpu = in_chunks if chunked else product
        sums = on_rows(MATRIX_ROWS, product, rows, kernel, cpu=cpu)
        if scale is not None:
            sums = sums * scale
        return sums.astype(self.compute).reshape(*x.shape[:-1], *kernel.shape[1:])


def on_rows(
    least: Mapping[str, int],
    function: Callable[..., jax.Array],
    rows: jax.Array,
    *others: jax.Array,
    axis: int = 0,
    cpu: Callable[..., jax.Array] | None = None,
) -> jax.Array:
    """`function(rows, *others)` with at least as many rows as the device multiplies well.

    Args:
      least: rows below which they are padded, by platform.
      function: gives a row of result for each row it gets, one independent of the other.
      rows: rows on axis `axis`, where the result has them too.
      others: further arguments.
      axis: which one.
      cpu: what a CPU runs in place of `function`.
    """
    count = rows.shape[axis]
    cpu = cpu or function
    if count >= max(least.values()):
        if cpu is function:
            return function(rows, *others)
        return jax.lax.platform_dependent(rows, *others, cpu=cpu, default=function)

    def padded_to(size: int) -> Callable[..., jax.Array]:
        padding = [(0, 0)] * rows.ndim
        padding[axis] = (0, max(size - count, 0))

        def padded(rows: jax.Array, *others: jax.Array) -> jax.Array:
            result = function(jnp.pad(rows, padding), *others)
            return jax.lax.slice_in_dim(result, 0, count, axis=axis)

        return padded

    by_platform = {"cpu": cpu} | {platform: padded_to(size) for platform, size in least.items()}
    return jax.lax.platform_dependent(rows, *others, **by_platform, default=function)
