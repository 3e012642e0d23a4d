"""Classifier-free guidance: each session runs twice, and the difference is stretched.

The two runs of a session are neighbouring rows 2b and 2b + 1 of the temporal batch, so a state's
batch axis stays the sessions. Source: `cfg_coef` in moshi/models/lm.py.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from helium_jax.config import MoshiConfig
from layers_jax import RingCache

UNKNOWN = -1


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How far the model is pushed from what it would do without a condition, or without tokens.

    Attributes:
      coefficient: 1 changes nothing, more pushes further (`cfg_coef`).
      masked_until: the second run does not see the first frames, up to this one
        (`cfg_is_masked_until`); None lets it see all.
      no_text: the second run does not see text, and text is drawn from the first run alone
        (`cfg_is_no_text`).
    """

    coefficient: float
    masked_until: int | None = None
    no_text: bool = False


def null_inputs(
    config: MoshiConfig, fed: Int[Array, "B K"], position: Int[Array, " B"], guidance: Guidance
) -> Int[Array, "N K"]:
    """The inputs of both runs of each session."""
    delays = jnp.array(config.delays)
    begun = position[:, None] > delays
    null = fed
    if guidance.masked_until is not None:
        hidden = begun & (position[:, None] <= delays + guidance.masked_until)
        null = jnp.where(hidden, UNKNOWN, null)
    if guidance.no_text:
        null = null.at[:, 0].set(jnp.where(begun[:, 0], UNKNOWN, null[:, 0]))
    return jnp.stack([fed, null], axis=1).reshape(-1, fed.shape[1])


def guided(
    logits: Float[Array, "N V"], guidance: Guidance, *, text: bool = False
) -> Float[Array, "B V"]:
    """Logits to draw from, out of those of both runs."""
    first, null = logits[0::2], logits[1::2]
    if text and guidance.no_text:
        return first
    return null + (first - null) * guidance.coefficient


def twice(rows: jax.Array) -> jax.Array:
    """Each row for both runs of its session."""
    return jnp.repeat(rows, 2, axis=0)


def as_rows(caches: list[RingCache]) -> list[RingCache]:
    """Rings [B, 2, ...] as rows [2 B, ...]; moves nothing."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), caches)


def as_pairs(caches: list[RingCache]) -> list[RingCache]:
    """Inverse of `as_rows`."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, 2, *leaf.shape[1:]), caches)
