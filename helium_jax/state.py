"""What the language model remembers between frames, a row a session."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from helium_jax.grid import NOT_READY
from helium_jax.guidance import as_pairs
from helium_jax.model import Moshi
from helium_jax.sampling import Sampling, row_keys
from layers_jax import RingCache


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MoshiState:
    """State of a batch of sessions; every leaf has the batch as first axis."""

    offset: jax.Array  # [B] int32, calls made
    tokens: jax.Array  # [B, K, M + 2] int32, the last positions of the delayed streams, a ring
    keys: jax.Array  # [B, 2] uint32, the row's random key
    caches: list[RingCache]  # a temporal layer each; under guidance [B, 2, ...], both runs


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepOutput:
    """What one call gives; shapes never change, `valid` says which rows mean something.

    `tokens` are those of the frame that the call completes, `NOT_READY` where not valid: frame
    call - max_delay, a PersonaPlex step one less. The log-probs are of the tokens decided in this
    very call (text and semantic of the newest frame, the delayed codebooks of earlier ones), under
    the distribution they were drawn from; 0 for those that were given.
    """

    tokens: jax.Array  # [B, 1 + dep_q] int32, text and the generated codebooks, delays undone
    valid: jax.Array  # [B] bool
    drawn: jax.Array  # [B, 1 + dep_q] int32, as decided, delays not undone
    log_probs: jax.Array  # [B, 1 + dep_q] f32, of `drawn`
    extra: jax.Array  # [B, E, C] f32, softmax of the extra heads; E is 0 without any


def init_state(
    lm: Moshi,
    batch: int,
    *,
    seed: int | Int[Array, ""] = 0,
    row_ids: Int[Array, " B"] | None = None,
    capacity: int | None = None,
    sampling: Sampling | None = None,
) -> MoshiState:
    """State of `batch` sessions before their first call.

    Args:
      lm: the model's definition.
      batch: sessions B.
      seed: of all random draws.
      row_ids: what tells the rows' draws apart, 0..B-1 by default.
      capacity: slots of the rings when no session will be longer, in frames; the context otherwise.
      sampling: of the step, which remembers twice as much under guidance.
    """
    config = lm.config
    guided = sampling is not None and sampling.guidance is not None
    caches = lm.temporal.init_caches(2 * batch if guided else batch, capacity)
    ids = jnp.arange(batch) if row_ids is None else row_ids
    return MoshiState(
        offset=jnp.zeros(batch, jnp.int32),
        tokens=jnp.full((batch, config.num_streams, config.max_delay + 2), NOT_READY, jnp.int32),
        keys=row_keys(seed, ids),
        caches=as_pairs(caches) if guided else caches,
    )
