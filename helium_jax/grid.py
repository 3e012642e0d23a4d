"""Which token is where and when: the delayed grid that a session's calls write and read.

Frame t of stream k is at position t + 1 + delays[k]; positions 0 to delays[k] hold the stream's
initial token. A call reads position p, decides position p + 1, and gives frame p - max_delay. Two
programs number their calls differently, and that is all that differs between them in time:

    kyutai       p = call      what the user says is placed as frame call - 1, and fed by this call
    personaplex  p = call - 1  it is placed as the same frame, but fed by the next call: the first
                               call runs no model, and all answers come a frame (80 ms) later

so in both the user's frame of call 0 is never seen. The second also holds the tokens of positions
1 to delays[k] to the initial one inside the depth transformer; the first lets it read its draws.
Source: `LMGen` in moshi/models/lm.py, and in that of NVIDIA/personaplex.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from helium_jax.config import MoshiConfig

NOT_READY = NOT_GIVEN = -2
UNKNOWN = -1


class Given(NamedTuple):
    """Tokens that a call takes as they are instead of drawing them, `NOT_GIVEN` where it draws.

    They stand for the reference's hooks: what is given is what the depth transformer reads on and
    what is stored, and its log-prob is 0.
    """

    text: jax.Array | None = None
    """[B] int32, the text token of position p + 1."""
    agent: jax.Array | None = None
    """[B, Q] int32, the agent's codes of the frame of that text; a delayed codebook's takes its
    place when it is due."""
    depth: jax.Array | None = None
    """[B, dep_q] int32, all codes of position p + 1, delays not undone: the depth transformer is
    not run. -1 is "no audio". Source: `depformer_replace_tokens`."""


class Grid(NamedTuple):
    """A call's view of the grid."""

    tokens: Int[Array, "B K C"]
    """The last C = max_delay + 2 positions, a ring."""
    position: Int[Array, " B"]
    """p of each row, -1 where no model runs yet."""
    runs: Bool[Array, " B"]
    """Rows whose model runs."""
    fed: Int[Array, "B K"]
    """Tokens of position p."""
    target: Int[Array, "B J"]
    """What is known of position p + 1 among the J generated streams, `NOT_GIVEN` elsewhere."""


def begin(
    config: MoshiConfig,
    tokens: Int[Array, "B K C"],
    offset: Int[Array, " B"],
    user: Int[Array, "B U"] | None,
    given: Given,
    mask: Bool[Array, " B"],
) -> Grid:
    """Places what a call brings, and reads what it feeds."""
    batch, own = tokens.shape[0], 1 + config.dep_q
    delays, initial = jnp.array(config.delays), jnp.array(config.initial_tokens)
    late = config.timing == "personaplex"
    position = offset - 1 if late else offset
    nothing = jnp.full((batch, 1 + config.num_agent_codebooks), NOT_GIVEN, tokens.dtype)
    agent = nothing[:, 1:] if given.agent is None else given.agent
    text = nothing[:, 0] if given.text is None else given.text
    frame = [text[:, None], agent]
    if late and user is None:
        user = jnp.full((batch, config.num_user_codebooks), NOT_GIVEN, tokens.dtype)
    if user is not None:
        frame.append(user)
    # The oldest slot is cleared by writing "not given" to it: it is the newest position now.
    when = position[:, None] + delays + (1 if late else jnp.arange(config.num_streams) < own)
    tokens = _put(tokens, when, jnp.concatenate(frame, axis=1), mask)

    fed = jnp.where(
        (position[:, None] <= delays) | ~mask[:, None], initial, _get(tokens, position[:, None])
    )
    target = _get(tokens, position[:, None] + 1)[:, :own]
    if late:
        begins = position[:, None] + 1 <= delays[:own]
        target = jnp.where(begins, initial[:own], target)
    return Grid(
        tokens=tokens,
        position=position,
        runs=mask & (position >= 0),
        fed=jnp.where(fed < 0, UNKNOWN, fed),
        target=target,
    )


def finish(
    config: MoshiConfig, grid: Grid, chosen: Int[Array, "B J"]
) -> tuple[Int[Array, "B K C"], Int[Array, "B J"], Bool[Array, " B"]]:
    """Stores what was decided for position p + 1, and reads the frame that this completes.

    Returns:
      The ring, the frame's tokens (`NOT_READY` where not valid), and where there is a frame.
    """
    own = 1 + config.dep_q
    after = grid.position[:, None] + 1
    tokens = _put(grid.tokens, after, chosen, grid.runs)
    ready = _get(tokens, after - config.max_delay + jnp.array(config.delays))[:, :own]
    valid = grid.runs & (after[:, 0] > config.max_delay)
    return tokens, jnp.where(valid[:, None], ready, NOT_READY), valid


def _put(
    ring: Int[Array, "B K C"],
    position: Int[Array, "B #K"],
    new: Int[Array, "B N"],
    mask: Bool[Array, " B"],
) -> Int[Array, "B K C"]:
    """`new` written to the first N streams, each at its position."""
    count = new.shape[1]
    slots = jnp.broadcast_to(position % ring.shape[2], ring.shape[:2])[:, :count]
    here = (jnp.arange(ring.shape[2]) == slots[..., None]) & mask[:, None, None]
    return ring.at[:, :count].set(jnp.where(here, new[..., None], ring[:, :count]))


def _get(ring: Int[Array, "B K C"], position: Int[Array, "B #K"]) -> Int[Array, "B K"]:
    """The token of each stream at its position."""
    slots = jnp.broadcast_to(position % ring.shape[2], ring.shape[:2])
    return jnp.take_along_axis(ring, slots[..., None], axis=2)[..., 0]
