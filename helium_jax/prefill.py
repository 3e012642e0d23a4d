"""Prompts in one pass: the state after many calls whose tokens are all known.

Equal to calling `step` with the same frames given, at the cost of one temporal pass over all of
them and no depth transformer.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from helium_jax.grid import NOT_GIVEN, UNKNOWN, Given, begin, finish
from helium_jax.model import Moshi
from helium_jax.state import MoshiState
from layers_jax import bind
from layers_jax.functional import Params


def prefill(
    lm: Moshi,
    params: Params,
    state: MoshiState,
    frames: Int[Array, "B T K"],
    lengths: Int[Array, " B"],
    conditions: Int[Array, "B C"] | None = None,
) -> MoshiState:
    """The state after `lengths` further calls of each row.

    The rows' frames before these must have been given too, or be none: a codebook with a delay is
    then known at every position (else it counts as unknown, -1).

    Args:
      lm: the model's definition (static).
      params: its parameters.
      state: sessions so far, made without guidance.
      frames: text, agent and user tokens of each call, in the order of the streams.
      lengths: calls of each row, at most T; 0 leaves a row as it is.
      conditions: `condition_rows` of each session.
    """
    _check_unguided(state)
    config, length = lm.config, frames.shape[1]
    model = bind(lm, params)
    own = 1 + config.num_agent_codebooks

    def call(
        carry: tuple[jax.Array, jax.Array], frame: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        tokens, offset = carry
        index, now = frame
        mask = index < lengths
        given = Given(text=now[:, 0], agent=now[:, 1:own])
        grid = begin(config, tokens, offset, now[:, own:], given, mask)
        decided = jnp.where(grid.target == NOT_GIVEN, UNKNOWN, grid.target)
        tokens, _, _ = finish(config, grid, decided)
        return (tokens, offset + mask), (grid.fed, grid.runs)

    each = (jnp.arange(length), frames.swapaxes(0, 1).astype(state.tokens.dtype))
    (tokens, offset), (fed, runs) = jax.lax.scan(call, (state.tokens, state.offset), each)
    condition = None if conditions is None else model.condition(conditions)
    first = state.offset - 1 if config.timing == "personaplex" else state.offset
    caches = model.prefill(
        model.embed(fed.transpose(1, 2, 0), condition), state.caches, first, runs.swapaxes(0, 1)
    )
    return MoshiState(offset=offset, tokens=tokens, keys=state.keys, caches=caches)


def prefill_embeddings(
    lm: Moshi,
    params: Params,
    state: MoshiState,
    embeddings: Float[Array, "N D"],
    ring: Int[Array, "K C"],
    length: Int[Array, ""],
) -> MoshiState:
    """Fresh rows after N model calls of which only the summed input embeddings were kept.

    Args:
      lm: the model's definition (static), with PersonaPlex's timing.
      params: its parameters.
      state: sessions before their first call; all get the same past.
      embeddings: inputs of positions 0 to N - 1; what follows `length` is padding.
      ring: the reference's own token ring after them: the token of position p is in column
        p mod C, C = max_delay + 3.
      length: N without the padding.
    """
    _check_unguided(state)
    batch, slots = state.tokens.shape[0], state.tokens.shape[2]
    model = bind(lm, params)
    valid = jnp.broadcast_to(jnp.arange(embeddings.shape[0]) < length, (batch, embeddings.shape[0]))
    embedded = jnp.broadcast_to(embeddings, (batch, *embeddings.shape)).astype(lm.precision.compute)
    caches = model.prefill(embedded, state.caches, jnp.zeros(batch, jnp.int32), valid)
    # Position N was decided last, and delayed codebooks are known up to their delay beyond it.
    newest = length + jnp.array(lm.config.delays)[:, None]
    positions = newest - (newest - jnp.arange(slots)) % slots
    held = jnp.take_along_axis(ring, positions % ring.shape[1], axis=1)
    tokens = jnp.broadcast_to(held, state.tokens.shape).astype(state.tokens.dtype)
    offset = jnp.broadcast_to(length + 1, (batch,)).astype(state.offset.dtype)
    return MoshiState(offset=offset, tokens=tokens, keys=state.keys, caches=caches)


def _check_unguided(state: MoshiState) -> None:
    if state.caches[0].keys.ndim != 4:
        raise ValueError(
            "prompts are for sessions without guidance; make the state without it, or step through "
            "the prompt"
        )
