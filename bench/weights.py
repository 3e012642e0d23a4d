"""Random weights that are made where they are used: no copy of a model ever lies on the host."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from layers_jax.functional import Params

__all__ = ["random_weights"]


def random_weights(shapes: Params, shardings: Any = None, *, seed: int = 0) -> Params:
    """Values for a tree of shapes, leaf by leaf, each shard drawn by the device that keeps it.

    Matrices are N(0, 1 / first axis), so that activations keep their size; vectors are 1; int8
    kernels use their whole range, and their scales are constant.

    Args:
      shapes: `jax.ShapeDtypeStruct` leaves.
      shardings: a sharding for all leaves, or a tree of them; the default device if None.
      seed: of all values.
    """
    named, tree = jax.tree_util.tree_flatten_with_path(shapes)
    leaves = [leaf for _, leaf in named]
    fan_in = {
        path[:-1]: leaf.shape[0] for path, leaf in named if getattr(path[-1], "key", "") == "kernel"
    }
    # The scale of an int8 kernel, as against that of a norm.
    factors = [
        1 / (127 * 3**-0.5 * fan_in[path[:-1]] ** 0.5)
        if getattr(path[-1], "key", "") == "scale" and path[:-1] in fan_in
        else None
        for path, _ in named
    ]
    places = (
        [shardings] * len(leaves)
        if shardings is None or isinstance(shardings, Sharding)
        else jax.tree.leaves(shardings, is_leaf=lambda leaf: isinstance(leaf, Sharding))
    )
    values = [
        _program(leaf.shape, jnp.dtype(leaf.dtype), place, factor)(
            jnp.int32(seed), jnp.int32(number)
        )
        for number, (leaf, place, factor) in enumerate(zip(leaves, places, factors, strict=True))
    ]
    return jax.tree.unflatten(tree, values)


@lru_cache(maxsize=1024)
def _program(
    shape: tuple[int, ...], dtype: jnp.dtype, place: Sharding | None, constant: float | None
) -> Any:
    """One program a shape: layers are alike."""

    def draw(seed: jax.Array, number: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), number)
        if len(shape) < 2 or constant is not None:
            return jnp.full(shape, 1.0 if constant is None else constant, dtype)
        if jnp.issubdtype(dtype, jnp.integer):
            return jax.random.randint(key, shape, -127, 128, jnp.int8).astype(dtype)
        return (jax.random.normal(key, shape, jnp.float32) * shape[0] ** -0.5).astype(dtype)

    return jax.jit(draw, out_shardings=place)
