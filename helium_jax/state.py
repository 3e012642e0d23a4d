"""What the language model remembers between frames, a row a session."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from helium_jax.model import Moshi
from helium_jax.sampling import row_keys
from layers_jax import RingCache

NOT_READY = -2


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MoshiState:
    """State of a batch of sessions; every leaf has the batch as first axis."""

    offset: jax.Array  # [B] int32, calls made; also the position in the rings
    tokens: jax.Array  # [B, K, M + 2] int32, the last positions of the delayed streams, a ring
    keys: jax.Array  # [B, 2] uint32, the row's random key
    caches: list[RingCache]  # a temporal layer each


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepOutput:
    """What one call gives; shapes never change, `valid` says which rows mean something.

    `tokens` are those of training frame `call - max_delay`, `NOT_READY` where not valid. The
    log-probs are of the tokens drawn in this very call (text and semantic of frame `call`, the
    delayed codebooks of earlier frames), under the distribution they were drawn from.
    """

    tokens: jax.Array  # [B, 1 + Q] int32, text and the agent's codebooks, delays undone
    valid: jax.Array  # [B] bool
    drawn: jax.Array  # [B, 1 + Q] int32, as drawn, delays not undone
    log_probs: jax.Array  # [B, 1 + Q] f32, of `drawn`


def init_state(
    lm: Moshi,
    batch: int,
    *,
    seed: int | Int[Array, ""] = 0,
    row_ids: Int[Array, " B"] | None = None,
    capacity: int | None = None,
) -> MoshiState:
    """State of `batch` sessions before their first call.

    Args:
      lm: the model's definition.
      batch: sessions B.
      seed: of all random draws.
      row_ids: what tells the rows' draws apart, 0..B-1 by default.
      capacity: slots of the rings when no session will be longer, in frames; the context otherwise.
    """
    config = lm.config
    ids = jnp.arange(batch) if row_ids is None else row_ids
    return MoshiState(
        offset=jnp.zeros(batch, jnp.int32),
        tokens=jnp.full((batch, config.num_streams, config.max_delay + 2), NOT_READY, jnp.int32),
        keys=row_keys(seed, ids),
        caches=lm.temporal.init_caches(batch, capacity),
    )
