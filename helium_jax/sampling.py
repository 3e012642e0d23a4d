"""Drawing tokens, and the log-prob of a token under the distribution it was drawn from.

Source: moshi/utils/sampling.py. Its draw, argmax of p / Exp(1) over the top k, is the Gumbel trick;
noise belongs to ranks, so that a recorded run can be replayed.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from helium_jax.config import MoshiConfig
from helium_jax.guidance import Guidance

# Exp(1) draws by rank: text [B, R], audio [B, Q, S]; None for a greedy choice.
Noise = tuple[jax.Array | None, jax.Array | None]


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How one kind of token is drawn.

    Attributes:
      temperature: 0 takes the most probable token, the first of equals.
      top_k: only the k most probable tokens can be drawn, renormalised; None keeps them all.
    """

    temperature: float
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}, expected 0 or more")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}, expected at least 1, or None for no limit")

    def num_ranks(self, vocabulary: int) -> int:
        """How many noise values a draw takes."""
        return min(self.top_k or vocabulary, vocabulary)

    def noise(self, keys: UInt32[Array, "*B 2"], vocabulary: int) -> Float[Array, "*B R"] | None:
        """Exp(1) draws by rank, each row's from its own key; None for a greedy choice."""
        if self.temperature == 0:
            return None
        ranks = self.num_ranks(vocabulary)
        draws = jax.vmap(lambda key: jax.random.exponential(_wrap(key), (ranks,)))
        return draws(keys.reshape(-1, 2)).reshape(*keys.shape[:-1], ranks)

    @jax.named_scope("sampling")
    def __call__(
        self, logits: Float[Array, "B V"], noise: Float[Array, "B R"] | None
    ) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
        """A token a row, and its log-prob (0 for greedy choices: they are certain).

        Args:
          logits: any float format; taken to f32.
          noise: Exp(1) draws by rank, R = `num_ranks(V)`; unused when the temperature is 0.
        """
        logits = logits.astype(jnp.float32)
        if self.temperature == 0:
            tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
            return tokens, jnp.zeros(logits.shape[0])
        assert noise is not None
        if self.top_k is None:  # noise by vocabulary entry: nothing needs sorting
            kept, order = logits, None
        else:
            kept, order = jax.lax.top_k(logits, self.num_ranks(logits.shape[-1]))
        log_probs = jax.nn.log_softmax(kept / self.temperature, axis=-1)
        chosen = jnp.argmax(log_probs - jnp.log(noise), axis=-1)[:, None]
        tokens = chosen if order is None else jnp.take_along_axis(order, chosen, axis=-1)
        log_prob = jnp.take_along_axis(log_probs, chosen, axis=-1)
        return tokens[:, 0].astype(jnp.int32), log_prob[:, 0]

    def log_probs_of(
        self, logits: Float[Array, "*B V"], tokens: Int[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """Log-prob of given tokens under the distribution that a draw would be from.

        -inf for tokens that cannot be drawn: outside the top k, or not the most probable one when
        the temperature is 0.
        """
        logits = logits.astype(jnp.float32)
        own = jnp.take_along_axis(logits, tokens[..., None], axis=-1)
        index = jnp.arange(logits.shape[-1])
        # Of equals the first is kept, as top_k does.
        before = (logits > own) | ((logits == own) & (index < tokens[..., None]))
        rank = jnp.sum(before, axis=-1)
        if self.temperature == 0:
            return jnp.where(rank == 0, 0.0, -jnp.inf)
        ranks = self.num_ranks(logits.shape[-1])
        kept = logits if self.top_k is None else jax.lax.top_k(logits, ranks)[0]
        total = jax.nn.logsumexp(kept / self.temperature, axis=-1)
        return jnp.where(rank < ranks, own[..., 0] / self.temperature - total, -jnp.inf)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a step draws; the defaults are those of the reference's `LMGen`."""

    text: Sampler = Sampler(temperature=0.7, top_k=25)
    audio: Sampler = Sampler(temperature=0.8, top_k=250)
    guidance: Guidance | None = None

    @classmethod
    def greedy(cls, guidance: Guidance | None = None) -> "Sampling":
        """The most probable token everywhere."""
        zero = Sampler(temperature=0)
        return cls(text=zero, audio=zero, guidance=guidance)

    @jax.named_scope("sampling")
    def noise(
        self, config: MoshiConfig, keys: UInt32[Array, "B 2"], frame: Int[Array, " B"]
    ) -> Noise:
        """The noise of one frame, from (seed, row, frame, stream) and nothing else."""
        text = fold(keys, frame, jnp.arange(1))[:, 0]
        audio = fold(keys, frame, 1 + jnp.arange(config.dep_q))
        return (self.text.noise(text, config.num_text_logits), self.audio.noise(audio, config.card))


def row_keys(seed: int | Int[Array, ""], row_ids: Int[Array, " B"]) -> UInt32[Array, "B 2"]:
    """One key a row from the run's seed and the row's own id, whatever batch the row sits in."""
    root = jax.random.key(seed, impl="threefry2x32")
    return jax.vmap(lambda row: jax.random.key_data(jax.random.fold_in(root, row)))(row_ids)


def fold(
    keys: UInt32[Array, "B 2"], frame: Int[Array, " B"], streams: Int[Array, " K"]
) -> UInt32[Array, "B K 2"]:
    """A key for each row's frame and each stream (0 text, 1 + k codebook k)."""

    def one(key: jax.Array, at: jax.Array, stream: jax.Array) -> jax.Array:
        return jax.random.key_data(jax.random.fold_in(jax.random.fold_in(_wrap(key), at), stream))

    by_stream = jax.vmap(one, in_axes=(None, None, 0))
    return jax.vmap(by_stream, in_axes=(0, 0, None))(keys, frame, streams)


def _wrap(key: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(key, impl="threefry2x32")
