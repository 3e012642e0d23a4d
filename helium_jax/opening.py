"""How a PersonaPlex session opens: prompts run once, and start any number of sessions after.

What they leave is kept with rings as short as they are, not as long as the context.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from helium_jax.model import Moshi
from helium_jax.prefill import prefill, prefill_embeddings
from helium_jax.prompts import Voice, prompt_frames
from helium_jax.state import MoshiState, init_state
from layers_jax import RingCache
from layers_jax.functional import Params
from mimi_jax import Mimi, encode

_PADDED_TO = 64  # frames: prompts of similar length share a program


def open_session(
    lm: Moshi,
    params: Params,
    mimi: Mimi,
    mimi_params: Params,
    voice: np.ndarray | Voice | None = None,
    text_tokens: Sequence[int] = (),
    *,
    beyond_context: bool = False,
) -> MoshiState:
    """The state [1] after the voice prompt, silence, the role, and silence.

    Args:
      lm: the model's definition, with PersonaPlex's timing.
      params: its parameters.
      mimi: the codec's definition.
      mimi_params: its parameters.
      voice: [S] samples of the voice to speak with, or what was kept of them; None begins with the
        silence.
      text_tokens: the role; may be empty.
      beyond_context: let prompts be longer than the context, as the reference does.

    Raises:
      ValueError: the model takes no prompts, they are longer than its context, or not usable.
    """
    config = lm.config
    if config.timing != "personaplex":
        raise ValueError(
            f"this model has timing {config.timing!r}, expected 'personaplex': only PersonaPlex "
            "was trained to begin with a voice and a role"
        )
    codes = stored = None
    if isinstance(voice, Voice):
        stored = voice
        expected = ("N", config.dim), (config.num_streams, config.max_delay + 3)
        if voice.embeddings.shape[1:] != (config.dim,) or voice.cache.shape != expected[1]:
            raise ValueError(
                f"voice has embeddings {list(voice.embeddings.shape)} and cache "
                f"{list(voice.cache.shape)}, expected [N, {config.dim}] and {list(expected[1])}; "
                "use a voice that was published with the model"
            )
    elif voice is not None:
        pcm = np.asarray(voice, np.float32)
        if pcm.ndim != 1 or not len(pcm) or not np.isfinite(pcm).all():
            raise ValueError(
                f"voice has shape {list(pcm.shape)}, expected [S] finite samples of one speaker at "
                f"{mimi.config.sample_rate} Hz"
            )
        program = jax.jit(partial(encode, mimi))
        codes = np.asarray(program(mimi_params, jnp.asarray(pcm)[None]))[0].T
    frames = prompt_frames(config, codes, text_tokens)
    calls = len(frames) + (len(stored.embeddings) + 1 if stored else 0)
    if calls > config.context and not beyond_context:
        raise ValueError(
            f"voice and role take {calls} frames, expected at most the context of "
            f"{config.context}: their beginning would be forgotten before the user is heard; "
            "shorten them, or allow it (beyond_context)"
        )
    state = init_state(lm, 1, capacity=_padded(calls))
    if stored:
        program = jax.jit(partial(prefill_embeddings, lm))
        count = len(stored.embeddings)
        padding = ((0, _padded(count) - count), (0, 0))
        embeddings = np.pad(stored.embeddings.astype(np.float32), padding)
        state = program(
            params, state, jnp.asarray(embeddings), jnp.asarray(stored.cache), jnp.asarray(count)
        )
    program = jax.jit(partial(prefill, lm))
    padded = np.pad(frames, ((0, _padded(len(frames)) - len(frames)), (0, 0)))
    return program(params, state, jnp.asarray(padded)[None], jnp.array([len(frames)]))


def continue_from(opening: MoshiState, fresh: MoshiState) -> MoshiState:
    """`fresh` sessions of any batch, each begun as `opening` was; their draws stay their own."""

    def fill(ring: jax.Array, start: jax.Array) -> jax.Array:
        rows = jnp.broadcast_to(start, (ring.shape[0], *start.shape[1:]))
        count = min(ring.shape[2], start.shape[2])
        return ring.at[:, :, :count].set(rows[:, :, :count])

    caches = [
        RingCache(fill(ring.keys, start.keys), fill(ring.values, start.values))
        for ring, start in zip(fresh.caches, opening.caches, strict=True)
    ]
    return MoshiState(
        offset=jnp.broadcast_to(opening.offset, fresh.offset.shape),
        tokens=jnp.broadcast_to(opening.tokens, fresh.tokens.shape),
        keys=fresh.keys,
        caches=caches,
    )


def _padded(count: int) -> int:
    return -(-count // _PADDED_TO) * _PADDED_TO
