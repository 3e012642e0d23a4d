"""The model's parameters and its two halves. Source: `LMModel` in moshi/models/lm.py."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from helium_jax.config import MoshiConfig
from helium_jax.depth import DepthTransformer
from layers_jax import Embedding, Linear, Precision, RingCache, RMSNorm, Transformer


class Moshi(nnx.Module):
    """Text and audio streams in, text and audio logits out.

    Args:
      config: shapes.
      precision: number formats.
      stacked: temporal layers on one leading axis (training) instead of in a list (decoding).
      rngs: source of initial parameters.
    """

    def __init__(
        self,
        config: MoshiConfig,
        *,
        precision: Precision | None = None,
        stacked: bool = False,
        rngs: nnx.Rngs,
    ):
        precision = precision or Precision.f32()
        # One table for all codebooks: indexing a stack of them would copy whole tables.
        self.audio_embedding = Embedding(
            config.n_q * (config.card + 1), config.dim, precision=precision, rngs=rngs
        )
        self.text_embedding = Embedding(
            config.text_card + 1, config.dim, precision=precision, rngs=rngs
        )
        self.temporal = Transformer(
            config.temporal, precision=precision, stacked=stacked, rngs=rngs
        )
        self.out_norm = RMSNorm(config.dim, precision=precision, rngs=rngs)
        self.text_head = Linear(config.dim, config.text_card, precision=precision, rngs=rngs)
        self.depth = DepthTransformer(config, precision=precision, rngs=rngs)
        self.config, self.precision = config, precision

    def embed(self, tokens: Int[Array, "B K T"]) -> Float[Array, "B T D"]:
        """Sum of the streams' embeddings, audio first, then text: the order matters in bf16."""
        config = self.config
        first_rows = jnp.arange(config.n_q)[:, None] * (config.card + 1)
        audio = self.audio_embedding(
            tokens[:, 1:], jnp.broadcast_to(first_rows, tokens[:, 1:].shape)
        )
        total = audio[:, 0]
        for k in range(1, config.n_q):
            total = total + audio[:, k]
        return total + self.text_embedding(tokens[:, 0])

    def hidden(self, tokens: Int[Array, "B K T"]) -> Float[Array, "B T D"]:
        """Normed temporal output of a whole delayed grid."""
        return self.out_norm(self.temporal(self.embed(tokens)))

    def hidden_step(
        self,
        tokens: Int[Array, "B K"],
        caches: list[RingCache],
        offset: Int[Array, " B"],
        mask: Bool[Array, " B"],
    ) -> tuple[Float[Array, "B D"], list[RingCache]]:
        """Normed temporal output of the next position of each row."""
        x, caches = self.temporal.step(self.embed(tokens[..., None]), caches, offset, mask)
        return self.out_norm(x)[:, 0], caches

    def text_logits(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Logits over the text vocabulary."""
        return self.text_head(hidden).astype(self.precision.logits)
