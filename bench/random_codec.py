"""A codec of any shape with random weights that keep a signal alive from end to end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from layers_jax.functional import Params, abstract, split
from mimi_jax import Mimi, MimiConfig

__all__ = ["noise_pcm", "random_codec"]


def random_codec(config: MimiConfig, *, seed: int = 0) -> tuple[Mimi, Params]:
    """Definition and parameters, drawn by numpy: initialising eagerly compiles a program a shape.

    Kernels are N(0, 1/fan_in), convolutions of the encoder twice that wide so that the signal
    outweighs the biases; code vectors are on the scale of the latents they quantize.
    """
    mimi, rng = abstract(lambda: Mimi(config, rngs=nnx.Rngs(0))), np.random.default_rng(seed)

    def leaf(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> jax.Array:
        names = [str(getattr(key, "key", getattr(key, "idx", ""))) for key in path]
        values = rng.standard_normal(shape.shape, np.float32)
        match names[-1]:
            case "kernel":
                transposed = "decoder" in names and len(shape.shape) == 3 and "resample" in names
                fan_in = shape.shape[0] if transposed else np.prod(shape.shape[:-1])
                gain = 2.0 if names[0] == "encoder" else 1.0
                values *= gain * float(fan_in) ** -0.5
            case "scale" if "norm" in names[-2]:
                values = 1 + 0.1 * values
            case "scale":
                values = np.full(shape.shape, config.transformer.layer_scale, np.float32)
            case "bias":
                values *= 0.02
            case "cluster_usage" | "initialized":
                values = np.ones(shape.shape, np.float32)
        return jnp.asarray(values)

    params = jax.tree_util.tree_map_with_path(leaf, split(mimi)[1])
    for part in params["quantizer"].values():
        for book in part["codebooks"]:
            book["embedding"] = book["embedding_sum"]  # over a usage of 1
    return mimi, params


def noise_pcm(samples: int, *, seed: int = 0) -> np.ndarray:
    """Noise [S] at the level of speech, its loudness moving as syllables do, four a second."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(samples) / 24_000
    loudness = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * seconds)
    return (0.1 * loudness * rng.standard_normal(samples)).astype(np.float32)
