"""Training the split residual quantizer: straight-through codes, running means as codebooks.

Encoder and decoder learn by gradient as if the code vectors were the latent; the code vectors
follow the latents by exponential averages of their sums and counts, which are what a Mimi
checkpoint stores (arXiv 2210.13438, section 3.2; moshi/quantization/core_vq.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from layers_jax.functional import Params
from mimi_jax.quantizer import MIN_USAGE, ResidualVQ, SplitResidualVQ

DECAY = 0.99
DEAD_USAGE = 0.02
"""An entry that fewer latents a step follow is moved onto a latent of the batch."""

Chain = list[tuple[jax.Array, jax.Array]]
"""(residual [N, d], code [N]) of each level: what the running means need."""


class Quantized(NamedTuple):
    """Decoder input of a batch."""

    latent: Array  # [B, T, D]
    semantic: Array  # [B, T, d]: vectors of the semantic codebook
    commitment: Array  # []: how far the encoder's output is from its code vectors
    chains: dict[str, Chain]


def quantize(
    quantizer: SplitResidualVQ,
    latent: Float[Array, "B T D"],
    on: Bool[Array, " B"],
    levels: Int[Array, " B"],
) -> Quantized:
    """Both halves of the quantizer with straight-through gradients.

    Args:
      quantizer: bound to its parameters.
      latent: encoder output.
      on: rows to quantize; the others pass through the projections only.
      levels: acoustic levels that count in each row: the first ones learn to carry the most.
    """
    total, commitment = jnp.zeros_like(latent), jnp.zeros(())
    chains, passed = {}, {}
    for name, half in (("semantic", quantizer.semantic), ("acoustic", quantizer.acoustic)):
        z = half.input_projection(latent)
        kept = jnp.maximum(levels, 1) if name == "semantic" else levels
        vectors, error, chains[name] = _descend(half, jax.lax.stop_gradient(z), kept)
        # z less what all levels say it is; not less what the kept levels do: that would shrink z.
        nearest = jax.lax.stop_gradient(z) - error
        commitment += jnp.mean(jnp.where(on[:, None, None], (z - nearest) ** 2, 0.0))
        through = z + jax.lax.stop_gradient(vectors - z)
        passed[name] = jnp.where(on[:, None, None], through, z)
        total += half.output_projection(passed[name])
    return Quantized(total, passed["semantic"], commitment, chains)


def _descend(
    half: ResidualVQ, z: Float[Array, "B T d"], levels: Int[Array, " B"]
) -> tuple[Float[Array, "B T d"], Float[Array, "B T d"], Chain]:
    """Sum of the first `levels` vectors, what all levels leave over, and the chain."""
    total, residual, chain = jnp.zeros_like(z), z, []
    for level, codebook in enumerate(half.codebooks):
        codes = codebook.nearest(residual)
        chain.append((residual.reshape(-1, z.shape[-1]), codes.reshape(-1)))
        vectors = jax.lax.stop_gradient(codebook.lookup(codes))
        total += jnp.where((level < levels)[:, None, None], vectors, 0.0)
        residual = residual - vectors
    return total, residual, chain


def follow(params: Params, chains: dict[str, Chain], key: Array) -> Params:
    """Quantizer parameters with every codebook moved towards the latents of a batch."""
    new = dict(params)
    for name, chain in chains.items():
        keys = jax.random.split(jax.random.fold_in(key, len(name)), len(chain))
        books = [
            _follow(book, *pair, k)
            for book, pair, k in zip(params[name]["codebooks"], chain, keys, strict=True)
        ]
        new[name] = {**params[name], "codebooks": books}
    return new


def _follow(book: Params, residual: jax.Array, codes: jax.Array, key: jax.Array) -> Params:
    bins = book["embedding"].shape[0]
    chosen = jax.nn.one_hot(codes, bins)
    usage = DECAY * book["cluster_usage"] + (1 - DECAY) * chosen.sum(axis=0)
    total = DECAY * book["embedding_sum"] + (1 - DECAY) * chosen.T @ residual
    fresh = residual[jax.random.randint(key, (bins,), 0, residual.shape[0])]
    dead = usage < DEAD_USAGE
    # A moved entry starts with ten times the limit: it has time to be chosen before it is moved.
    total = jnp.where(dead[:, None], 10 * DEAD_USAGE * fresh, total)
    usage = jnp.where(dead, 10 * DEAD_USAGE, usage)
    return {
        **book,
        "cluster_usage": usage,
        "embedding_sum": total,
        "embedding": total / jnp.maximum(usage, MIN_USAGE)[:, None],
    }


def start_codebooks(
    params: Params, latents: Float[np.ndarray, "N D"], rng: np.random.Generator
) -> Params:
    """Quantizer parameters whose codebooks are k-means centres of `latents`, level by level."""
    new: dict[str, Any] = {}
    for name, half in params.items():
        residual = latents @ np.asarray(half["input_projection"]["kernel"])
        books = []
        for book in half["codebooks"]:
            centres, codes = _k_means(residual, book["embedding"].shape[0], rng)
            residual = residual - centres[codes]
            # Counts are those of one step, the unit of the running means.
            usage = np.full(len(centres), 1.0, np.float32)
            books.append(
                {
                    **book,
                    "cluster_usage": jnp.asarray(usage),
                    "embedding_sum": jnp.asarray(centres * usage[:, None]),
                    "embedding": jnp.asarray(centres),
                }
            )
        new[name] = {**half, "codebooks": books}
    return new


def _k_means(
    points: Float[np.ndarray, "N d"], bins: int, rng: np.random.Generator, rounds: int = 8
) -> tuple[Float[np.ndarray, "K d"], Int[np.ndarray, " N"]]:
    centres = points[rng.choice(len(points), bins, replace=len(points) < bins)].astype(np.float32)
    codes = np.zeros(len(points), np.int64)
    for _ in range(rounds):
        codes = np.argmin(0.5 * np.sum(centres**2, axis=1) - points @ centres.T, axis=1)
        counts = np.bincount(codes, minlength=bins)
        sums = np.zeros_like(centres)
        np.add.at(sums, codes, points)
        filled = counts > 0
        centres[filled] = sums[filled] / counts[filled, None]
        centres[~filled] = points[rng.choice(len(points), int((~filled).sum()))]
    return centres, codes
