"""The one step: live sessions, files, batches and rollouts all call this function.

Source: `LMGen` in moshi/models/lm.py. Output of call i is training frame i - max_delay; the user's
frame of call f is training frame f - 1, and that of call 0 is never seen (its places hold the
initial tokens).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from helium_jax.model import Moshi
from helium_jax.sampling import Noise, Sampling
from helium_jax.state import NOT_READY, MoshiState, StepOutput
from layers_jax import bind
from layers_jax.functional import Params


def step(
    lm: Moshi,
    params: Params,
    state: MoshiState,
    user_codes: Int[Array, "B U"],
    *,
    sampling: Sampling,
    exec_mask: Bool[Array, " B"] | None = None,
    noise: Noise | None = None,
) -> tuple[MoshiState, StepOutput]:
    """One frame: the user's codes in, the agent's text and codes out.

    Args:
      lm: the model's definition (static).
      params: its parameters.
      state: sessions so far; donate it.
      user_codes: U = n_q - dep_q codes of the user's frame.
      sampling: how tokens are drawn (static).
      exec_mask: rows to run, all by default; the others' state is untouched.
      noise: recorded Exp(1) draws by rank for text [B, R] and audio [B, Q, S], in place of the
        rows' own.

    Raises:
      ValueError: `user_codes` has not U codebooks.
    """
    config = lm.config
    if config.num_user_codebooks == 0:
        raise ValueError(
            "the model generates the user's codebooks too (dep_q equals n_q), so this step would "
            "ignore what the user says; PersonaPlex sessions are not implemented yet"
        )
    if user_codes.shape[1] != config.num_user_codebooks:
        raise ValueError(
            f"user_codes has {user_codes.shape[1]} codebooks, expected "
            f"{config.num_user_codebooks} (n_q - dep_q); set the codec's num_codebooks"
        )
    model = bind(lm, params)
    batch = user_codes.shape[0]
    mask = jnp.ones(batch, bool) if exec_mask is None else exec_mask
    delays = jnp.array(config.delays)
    first_user = 1 + config.dep_q

    tokens = _put(state.tokens, state.offset, delays, user_codes, first_user, mask)
    fed = jnp.where(
        (state.offset[:, None] <= delays) | ~mask[:, None],
        jnp.array(config.initial_tokens),
        _get(tokens, state.offset[:, None]),
    )
    hidden, caches = model.hidden_step(fed, state.caches, state.offset, mask)

    # All noise of the frame in one draw: values depend on the stream alone, not on who asks first.
    text_noise, audio_noise = noise or sampling.noise(config, state.keys, state.offset)

    drawn = [sampling.text(model.text_logits(hidden), text_noise)]

    def choose(k: int, logits: jax.Array) -> jax.Array:
        drawn.append(sampling.audio(logits, None if audio_noise is None else audio_noise[:, k]))
        return drawn[-1][0]

    model.depth.unroll(hidden, drawn[0][0], choose)
    sampled = jnp.stack([token for token, _ in drawn], axis=1)
    log_probs = jnp.stack([log_prob for _, log_prob in drawn], axis=1)

    offset = state.offset + mask
    tokens = _put(tokens, offset, jnp.zeros_like(delays), sampled, 0, mask)
    valid = mask & (offset > config.max_delay)
    ready = _get(tokens, offset[:, None] - config.max_delay + delays)[:, :first_user]
    output = StepOutput(
        tokens=jnp.where(valid[:, None], ready, NOT_READY),
        valid=valid,
        drawn=jnp.where(mask[:, None], sampled, NOT_READY),
        log_probs=log_probs,
    )
    return MoshiState(offset=offset, tokens=tokens, keys=state.keys, caches=caches), output


def _put(
    ring: Int[Array, "B K C"],
    offset: Int[Array, " B"],
    delays: Int[Array, " K"],
    new: Int[Array, "B N"],
    first: int,
    mask: Bool[Array, " B"],
) -> Int[Array, "B K C"]:
    """`new` written to streams first.., each at its row's offset plus its stream's delay."""
    last = first + new.shape[1]
    slots = (offset[:, None] + delays[first:last]) % ring.shape[2]
    here = (jnp.arange(ring.shape[2]) == slots[..., None]) & mask[:, None, None]
    return ring.at[:, first:last].set(jnp.where(here, new[..., None], ring[:, first:last]))


def _get(ring: Int[Array, "B K C"], position: Int[Array, "B #K"]) -> Int[Array, "B K"]:
    """The token of each stream at its position."""
    slots = jnp.broadcast_to(position % ring.shape[2], ring.shape[:2])
    return jnp.take_along_axis(ring, slots[..., None], axis=2)[..., 0]
