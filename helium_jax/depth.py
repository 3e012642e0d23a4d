"""The depth transformer: the codebooks of one frame, one after the other.

Source: `depformer` in moshi/models/lm.py.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from helium_jax.config import MoshiConfig
from layers_jax import Embedding, Linear, LowRankEmbedding, Precision, RMSNorm
from layers_jax.attention import attend
from layers_jax.mlp import GatedMlp
from layers_jax.sharding import replicated
from layers_jax.transformer import Attention


class DepthBlock(nnx.Module):
    """A layer whose matrices exist once a weight set (a codebook each); its norms are shared."""

    def __init__(self, config: MoshiConfig, *, precision: Precision, rngs: nnx.Rngs):
        shape, sets = config.depth, config.num_depth_weight_sets
        self.norm1 = RMSNorm(shape.dim, precision=precision, rngs=rngs)
        self.norm2 = RMSNorm(shape.dim, precision=precision, rngs=rngs)
        self.attention = nnx.List(
            [Attention(shape, precision=precision, rngs=rngs) for _ in range(sets)]
        )
        self.mlp = nnx.List(
            [
                GatedMlp(shape.dim, shape.hidden, lora=shape.lora, precision=precision, rngs=rngs)
                for _ in range(sets)
            ]
        )
        self.config, self.precision = config, precision

    def __call__(
        self,
        x: Float[Array, "B 1 D"],
        codebook: int,
        past: list[tuple[jax.Array, jax.Array]],
        sees_text: bool = True,
    ) -> Float[Array, "B 1 D"]:
        """Position `codebook` of the frame; its key and value are appended to `past`."""
        weights = self.config.depth_weight_sets[codebook]
        attention = self.attention[weights]
        queries, keys, values = attention.project(self.norm1(x))
        past.append((keys, values))
        all_keys, all_values = (
            jnp.concatenate(parts, axis=1).swapaxes(1, 2) for parts in zip(*past, strict=True)
        )
        seen = jnp.ones((x.shape[0], 1, len(past)), bool)
        if not sees_text:
            seen = seen.at[:, :, 0].set(False)
        heads = attend(queries, [(all_keys, all_values)], seen, self.precision.matmul)
        x = replicated(x + attention.merge(heads))
        return replicated(x + self.mlp[weights](self.norm2(x)))


class DepthTransformer(nnx.Module):
    """Codebook k from the frame's hidden state, its text token and codebooks 0..k-1."""

    def __init__(self, config: MoshiConfig, *, precision: Precision, rngs: nnx.Rngs):
        dim, card, steps = config.depformer_dim, config.card, config.dep_q

        def linear(in_dim: int, out_dim: int) -> Linear:
            return Linear(in_dim, out_dim, lora=config.lora, precision=precision, rngs=rngs)

        def table(entries: int) -> Embedding | LowRankEmbedding:
            rank = config.depformer_low_rank_embeddings
            if rank is None:
                return Embedding(entries, dim, precision=precision, rngs=rngs)
            lora = config.lora
            return LowRankEmbedding(entries, dim, rank, lora=lora, precision=precision, rngs=rngs)

        self.inputs = nnx.List(
            [linear(config.dim, dim) for _ in range(config.num_depth_weight_sets)]
        )
        self.text_embedding = table(config.text_card + 1)
        self.audio_embeddings = nnx.List([table(card + 1) for _ in range(steps - 1)])
        self.layers = nnx.List(
            [
                DepthBlock(config, precision=precision, rngs=rngs)
                for _ in range(config.depformer_num_layers)
            ]
        )
        self.heads = nnx.List([linear(dim, card) for _ in range(steps)])
        self.norms = (
            None
            if config.depformer_norm is None
            else nnx.List([RMSNorm(dim, precision=precision, rngs=rngs) for _ in range(steps)])
        )
        self.config, self.precision = config, precision

    @jax.named_scope("depth")
    def unroll(
        self,
        hidden: Float[Array, "B D"],
        text: Int[Array, " B"],
        choose: Callable[[int, Float[Array, "B V"]], Int[Array, " B"]],
        steps: int | None = None,
        last_sees_text: bool = True,
    ) -> None:
        """Calls `choose(k, logits)` for each codebook k in turn and feeds its answer to the next.

        Decoding chooses by sampling, teacher forcing by looking the token up: one program for both.

        Args:
          hidden: normed temporal output.
          text: the frame's text token, -1 for unknown.
          choose: gives the token of codebook k from its logits, which are in `precision.logits`.
          steps: codebooks to go through; all by default. What follows need not be computed when
            its tokens are known: nothing before depends on it.
          last_sees_text: whether the step of the last codebook attends to the text token.
        """
        past: list[list[tuple[jax.Array, jax.Array]]] = [[] for _ in self.layers]
        token = text
        for k in range(len(self.heads) if steps is None else steps):
            table = self.text_embedding if k == 0 else self.audio_embeddings[k - 1]
            # XLA for GPUs would merge all products of `hidden`, copying their weights side by side
            # every frame; each is made to wait for its token, which it is added to anyway.
            hidden, token = jax.lax.optimization_barrier((hidden, token))
            x = (self.inputs[self.config.depth_weight_sets[k]](hidden) + table(token))[:, None]
            for layer, layer_past in zip(self.layers, past, strict=True):
                x = layer(x, k, layer_past, last_sees_text or k < len(self.heads) - 1)
            out = x[:, 0] if self.norms is None else self.norms[k](x[:, 0])
            token = choose(k, self.heads[k](out).astype(self.precision.logits))
