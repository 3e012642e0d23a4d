"""Split residual vector quantization. Source: moshi/quantization/{core_vq,vq}.py."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from layers_jax import Linear, Precision
from mimi_jax.config import QuantizerConfig

MIN_USAGE = 1e-5
CPU_FEW_ROWS = 2  # up to which a CPU reads the codebook faster than it multiplies with it


class Codebook(nnx.Module):
    """Code vectors, and the running sums that a checkpoint stores in their place.

    `embedding` [N, d] is `embedding_sum / max(cluster_usage, 1e-5)`, divided once at load; the sums
    stay beside it so that a checkpoint can be given back bit for bit.
    """

    def __init__(self, config: QuantizerConfig, *, rngs: nnx.Rngs):
        shape = (config.bins, config.dimension)
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), shape))
        self.embedding_sum = nnx.Param(self.embedding[...])
        self.cluster_usage = nnx.Param(jnp.ones((config.bins,)))
        self.initialized = nnx.Param(jnp.ones((1,)))

    def nearest(self, residual: Float[Array, "B T d"]) -> Int[Array, "B T"]:
        """Index of the closest code vector, the first of equals."""
        rows = residual.reshape(-1, residual.shape[-1])
        table = self.embedding[...]
        if len(rows) <= CPU_FEW_ROWS:
            order = jax.lax.platform_dependent(rows, table, cpu=_distances, default=_half_distances)
        else:
            order = _half_distances(rows, table)
        return jnp.argmin(order, axis=-1).reshape(residual.shape[:-1])

    def lookup(self, codes: Int[Array, "B T"]) -> Float[Array, "B T d"]:
        """Code vectors; a code outside 0..N-1 gives zeros rather than a clamped neighbour."""
        table = self.embedding[...]
        known = (codes >= 0) & (codes < table.shape[0])
        return jnp.where(known[..., None], table[jnp.where(known, codes, 0)], 0)


def _half_distances(rows: Float[Array, "R d"], table: Float[Array, "N d"]) -> Float[Array, "R N"]:
    """Half the squared norm less the dot product, which orders as the distance does."""
    dots = jnp.einsum("rd,nd->rn", rows, table, precision="highest")
    return 0.5 * jnp.sum(table**2, axis=-1) - dots


def _distances(rows: Float[Array, "R d"], table: Float[Array, "N d"]) -> Float[Array, "R N"]:
    """The squared distance as it is written, which reads the table once a row and stores no more.

    The reference too takes differences for few rows, and products for many.
    """
    return jnp.stack([jnp.sum((table - row) ** 2, axis=-1) for row in rows])


class ResidualVQ(nnx.Module):
    """Codebooks applied in turn to what the earlier ones left, between two projections."""

    def __init__(
        self,
        dim: int,
        config: QuantizerConfig,
        levels: int,
        *,
        precision: Precision,
        rngs: nnx.Rngs,
    ):
        self.input_projection = Linear(dim, config.dimension, precision=precision, rngs=rngs)
        self.output_projection = Linear(config.dimension, dim, precision=precision, rngs=rngs)
        self.codebooks = nnx.List([Codebook(config, rngs=rngs) for _ in range(levels)])

    def encode(self, latent: Float[Array, "B T D"], levels: int) -> list[Int[Array, "B T"]]:
        """Codes of the first `levels` codebooks."""
        residual, codes = self.input_projection(latent), []
        for codebook in self.codebooks[:levels]:
            codes.append(codebook.nearest(residual))
            residual = residual - codebook.lookup(codes[-1])
        return codes

    def decode(self, codes: Int[Array, "B K T"]) -> Float[Array, "B T D"]:
        """Sum of the code vectors in level order, projected back."""
        vectors = self.codebooks[0].lookup(codes[:, 0])
        for level in range(1, codes.shape[1]):
            vectors = vectors + self.codebooks[level].lookup(codes[:, level])
        return self.output_projection(vectors)


class SplitResidualVQ(nnx.Module):
    """One semantic codebook and a residual chain of acoustic ones, both on the same latent."""

    def __init__(self, dim: int, config: QuantizerConfig, *, precision: Precision, rngs: nnx.Rngs):
        self.semantic = ResidualVQ(dim, config, 1, precision=precision, rngs=rngs)
        self.acoustic = ResidualVQ(dim, config, config.n_q - 1, precision=precision, rngs=rngs)

    def encode(self, latent: Float[Array, "B T D"], num_codebooks: int) -> Int[Array, "B K T"]:
        """Codes of the first K codebooks."""
        codes = self.semantic.encode(latent, 1)
        codes += self.acoustic.encode(latent, num_codebooks - 1)
        return jnp.stack(codes, axis=1).astype(jnp.int32)

    def decode(self, codes: Int[Array, "B K T"]) -> Float[Array, "B T D"]:
        """Latent of K >= 1 codebooks."""
        latent = self.semantic.decode(codes[:, :1])
        if codes.shape[1] == 1:
            return latent
        return latent + self.acoustic.decode(codes[:, 1:])
