"""The model's parameters and its two halves. Source: `LMModel` in moshi/models/lm.py."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from helium_jax.conditions import LutCondition
from helium_jax.config import MoshiConfig
from helium_jax.depth import DepthTransformer
from layers_jax import Embedding, Linear, Precision, RingCache, RMSNorm, Transformer
from layers_jax.sharding import replicated

_EOS, _PAD = 2, 3


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
        entries = config.n_q * (config.card + 1)
        self.audio_embedding = (
            Embedding(entries, config.dim, precision=precision, rngs=rngs) if entries else None
        )
        self.text_embedding = Embedding(
            config.text_card + 1, config.dim, precision=precision, rngs=rngs
        )
        self.temporal = Transformer(
            config.temporal, precision=precision, stacked=stacked, rngs=rngs
        )
        self.out_norm = RMSNorm(config.dim, precision=precision, rngs=rngs)
        lora = config.lora

        def head(out_dim: int) -> Linear:
            return Linear(config.dim, out_dim, lora=lora, precision=precision, rngs=rngs)

        self.text_head = head(config.num_text_logits)
        self.depth = (
            DepthTransformer(config, precision=precision, rngs=rngs) if config.dep_q else None
        )
        extra = [head(config.extra_heads_dim) for _ in range(config.extra_heads_num_heads)]
        self.extra_heads = nnx.List(extra) if extra else None
        conditioners = [
            LutCondition(lut, config.dim, lora=lora, rngs=rngs) for lut in config.conditioners
        ]
        self.conditioners = nnx.List(conditioners) if conditioners else None
        self.config, self.precision = config, precision

    def condition(self, rows: Int[Array, "B C"]) -> Float[Array, "B D"]:
        """What is added to every input of each session, from its `condition_rows`; f32.

        Raises:
          ValueError: the model has no conditions.
        """
        if self.conditioners is None:
            raise ValueError("conditions were given, but the model has no conditioners")
        vectors = [table(rows[:, i]) for i, table in enumerate(self.conditioners)]
        return jnp.sum(jnp.stack(vectors), axis=0)

    def embed(
        self, tokens: Int[Array, "B K T"], condition: Float[Array, "B D"] | None = None
    ) -> Float[Array, "B T D"]:
        """Sum of the streams' embeddings, audio, text, condition: the order matters in bf16."""
        config = self.config
        text = tokens[:, 0]
        if config.reads_eos_as_pad:
            text = jnp.where(text == _EOS, _PAD, text)
        total = self.text_embedding(text)
        if self.audio_embedding is not None:
            first_rows = jnp.arange(config.n_q)[:, None] * (config.card + 1)
            audio = self.audio_embedding(
                tokens[:, 1:], jnp.broadcast_to(first_rows, tokens[:, 1:].shape)
            )
            total = sum((audio[:, k] for k in range(1, config.n_q)), start=audio[:, 0]) + total
        if condition is not None:
            total = total + condition[:, None].astype(total.dtype)
        return replicated(total)

    def hidden(
        self, tokens: Int[Array, "B K T"], condition: Float[Array, "B D"] | None = None
    ) -> Float[Array, "B T D"]:
        """Normed temporal output of a whole delayed grid."""
        return replicated(self.out_norm(self.temporal(self.embed(tokens, condition))))

    def hidden_step(
        self,
        tokens: Int[Array, "B K"],
        caches: list[RingCache],
        offset: Int[Array, " B"],
        mask: Bool[Array, " B"],
        condition: Float[Array, "B D"] | None = None,
    ) -> tuple[Float[Array, "B D"], list[RingCache]]:
        """Normed temporal output of the next position of each row."""
        embedded = self.embed(tokens[..., None], condition)
        x, caches = self.temporal.step(embedded, caches, offset, mask)
        return replicated(self.out_norm(x)[:, 0]), caches

    def prefill(
        self,
        embedded: Float[Array, "B T D"],
        caches: list[RingCache],
        offset: Int[Array, " B"],
        valid: Bool[Array, "B T"],
    ) -> list[RingCache]:
        """The rings after many positions at once; see `Transformer.prefill`."""
        return self.temporal.prefill(embedded, caches, offset, valid)[1]

    def text_logits(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Logits over the text vocabulary."""
        return replicated(self.text_head(hidden)).astype(self.precision.logits)

    def extra_probabilities(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B E C"]:
        """Softmax of each of the E extra heads over its C classes, f32; E is 0 without any."""
        if self.extra_heads is None:
            return jnp.zeros((*hidden.shape[:-1], 0, self.config.extra_heads_dim))
        logits = jnp.stack([head(hidden) for head in self.extra_heads], axis=-2)
        return jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
