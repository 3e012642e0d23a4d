"""Matrices and tables. Matrices are stored (in, out): the form that streams best at batch 1."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Int8

from layers_jax.functional import Params
from layers_jax.lora import LoraConfig, scaled
from layers_jax.precision import Precision


def normal_init(
    rngs: nnx.Rngs, shape: tuple[int, ...], precision: Precision, *, fan_in: int
) -> nnx.Param:
    """A parameter of the given shape, N(0, 1/fan_in)."""
    values = jax.random.normal(rngs.params(), shape) * fan_in**-0.5
    return nnx.Param(values.astype(precision.params))


def quantize(kernel: Float[Array, "D ..."]) -> tuple[Int8[Array, "D ..."], Float[Array, "..."]]:
    """A matrix as int8 and the f32 scale of each output channel [*E]; rounds to nearest."""
    wide = kernel.astype(jnp.float32)
    scale = jnp.max(jnp.abs(wide), axis=0) / 127
    whole = jnp.round(wide / jnp.where(scale == 0, 1, scale))
    return whole.astype(jnp.int8), scale


def quantize_matrices(params: Params, like: Params) -> Params:
    """The matrices of `params` in int8 wherever those of `like` are; everything else as it is.

    Args:
      params: nested dicts and lists of a model in f32 or bf16.
      like: parameters, or their shapes, of the same model with `precision.int8`.
    """

    def walk(given: Any, target: Any) -> Any:
        if isinstance(target, list):
            return [walk(*pair) for pair in zip(given, target, strict=True)]
        if not isinstance(target, dict):
            return given
        made = {name: walk(given[name], target[name]) for name in given}
        if "scale" in target and "kernel" in target:
            made["kernel"], made["scale"] = quantize(given["kernel"])
        return made

    return walk(params, like)


class Linear(nnx.Module):
    """`y = x @ kernel`, no bias; kernel [D, *E], where a fused projection has several axes E.

    Every matrix of a model is one of these: what can stand beside a kernel is written here once.
    With `precision.int8` the kernel is int8 and each output channel has an f32 scale [*E].
    With `lora` there is an adapter, lora_a [D, R] and lora_b [R, *E], that starts as nothing.
    """

    def __init__(
        self,
        in_dim: int,
        features: int | tuple[int, ...],
        *,
        lora: LoraConfig | None = None,
        precision: Precision,
        rngs: nnx.Rngs,
    ):
        shape = (features,) if isinstance(features, int) else features
        kernel = normal_init(rngs, (in_dim, *shape), precision, fan_in=in_dim)
        if precision.int8:
            values, scale = quantize(kernel[...])
            self.kernel, self.scale = nnx.Param(values), nnx.Param(scale)
        else:
            self.kernel, self.scale = kernel, None
        if lora is None:
            self.lora_a = self.lora_b = None
        else:  # as moshi-finetune starts: A from Kaiming's uniform with a = sqrt(5), B zero
            limit, key = in_dim**-0.5, rngs.params()
            a = jax.random.uniform(key, (in_dim, lora.rank), minval=-limit, maxval=limit)
            self.lora_a = nnx.Param(a.astype(precision.params))
            self.lora_b = nnx.Param(jnp.zeros((lora.rank, *shape), precision.params))
        self.lora, self.precision = lora, precision

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "..."]:
        """`x[..., D]` -> `[..., *E]` in the compute format."""
        scale = None if self.scale is None else self.scale[...]
        y = self.precision.dot(x, self.kernel[...], scale)
        if self.lora is None:
            return y
        assert self.lora_a is not None and self.lora_b is not None
        low = self.precision.dot(x, self.lora_a[...])
        return y + scaled(self.precision.dot(low, self.lora_b[...]), self.lora.scaling)


class Embedding(nnx.Module):
    """A table [V, D]; id -1 ("unknown") gives the zero vector.

    Source: `ScaledEmbedding` in moshi/models/lm_utils.py.
    """

    def __init__(self, num_entries: int, dim: int, *, precision: Precision, rngs: nnx.Rngs):
        self.table = normal_init(rngs, (num_entries, dim), precision, fan_in=dim)
        self.precision = precision

    def __call__(
        self, ids: Int[Array, "*B"], first_row: Int[Array, "*#B"] | int = 0
    ) -> Float[Array, "*B D"]:
        """Rows `first_row + ids`; `first_row` picks one of several tables laid end to end."""
        rows = self.table[...][first_row + jnp.maximum(ids, 0)]
        return jnp.where(ids[..., None] == -1, 0, rows).astype(self.precision.compute)


class LowRankEmbedding(nnx.Module):
    """A narrow table [V, R] and a projection to width D; id -1 ("unknown") gives the zero vector.

    Source: `ScaledEmbedding(low_rank=R)` in moshi/models/lm_utils.py.
    """

    def __init__(
        self,
        num_entries: int,
        dim: int,
        rank: int,
        *,
        lora: LoraConfig | None = None,
        precision: Precision,
        rngs: nnx.Rngs,
    ):
        self.table = normal_init(rngs, (num_entries, rank), precision, fan_in=rank)
        self.projection = Linear(rank, dim, lora=lora, precision=precision, rngs=rngs)

    def __call__(self, ids: Int[Array, "*B"]) -> Float[Array, "*B D"]:
        """The projected rows `ids`."""
        rows = self.table[...][jnp.maximum(ids, 0)]
        return self.projection(jnp.where(ids[..., None] == -1, 0, rows))
