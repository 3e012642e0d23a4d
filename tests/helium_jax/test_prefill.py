"""Prompts in one pass against the same frames given call by call."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from helium_jax import (
    Given,
    Guidance,
    Moshi,
    Sampling,
    as_personaplex,
    init_state,
    prefill,
    prefill_embeddings,
    step,
)
from layers_jax.functional import bind

GREEDY = Sampling.greedy()


@pytest.fixture(scope="module", params=["kyutai", "personaplex"])
def model(request, small, random_module):
    """A model of either timing, with a context of 6 frames, and its programs."""
    config = replace(small.config, context=6)
    if request.param == "personaplex":
        config = as_personaplex(replace(config, dep_q=4))
    return random_module(lambda: Moshi(config, rngs=nnx.Rngs(0)))


def by_steps(lm, params, state, frames, lengths):
    """Frames [B, T, K] given call by call."""
    own = 1 + lm.config.num_agent_codebooks

    def body(state, call):
        index, frame = call
        given = Given(text=frame[:, 0], agent=frame[:, 1:own])
        return step(
            lm, params, state, frame[:, own:], sampling=GREEDY, given=given,
            exec_mask=index < lengths,
        )  # fmt: skip

    each = (jnp.arange(frames.shape[1]), frames.swapaxes(0, 1))
    return jax.lax.scan(body, state, each)[0]


def free(lm, params, state, users):
    """What is said to users [S, B, U] from a state on."""

    def body(state, user):
        return step(lm, params, state, user, sampling=GREEDY)

    return jax.lax.scan(body, state, users)[1].tokens


def tokens_of(lm, batch, length, seed):
    rng, config = np.random.default_rng(seed), lm.config
    text = rng.integers(0, config.text_card, (batch, length, 1))
    audio = rng.integers(0, config.card, (batch, length, config.n_q))
    return jnp.asarray(np.concatenate([text, audio], axis=2), jnp.int32)


def test_one_pass_equals_call_by_call_also_past_the_context_and_in_two_parts(model):
    """Rows of different lengths; the ring of six wraps, and the second part finds it full."""
    lm, params = model
    first, second = tokens_of(lm, 3, 9, 1), tokens_of(lm, 3, 5, 2)
    users = tokens_of(lm, 8, 3, 3)[:, :, -lm.config.num_user_codebooks :]
    lengths = jnp.array([9, 4, 0]), jnp.array([2, 5, 5])

    def both(params, extend):
        state = extend(lm, params, init_state(lm, 3), first, lengths[0])
        state = extend(lm, params, state, second, lengths[1])
        return state.offset, free(lm, params, state, users)

    offsets, once = jax.jit(lambda params: both(params, prefill))(params)
    assert offsets.tolist() == [11, 9, 5]
    expected = jax.jit(lambda params: both(params, by_steps))(params)[1]
    np.testing.assert_array_equal(once, expected)
    assert len(np.unique(expected)) > 6, "the model must have something to say"


def test_one_pass_leaves_what_calls_leave_in_the_rings(model):
    lm, params = model
    frames, lengths = tokens_of(lm, 2, 8, 1), jnp.array([8, 3])
    fresh = init_state(lm, 2)
    got, expected = (
        jax.jit(lambda params, extend=extend: extend(lm, params, fresh, frames, lengths))(params)
        for extend in (prefill, by_steps)
    )
    for ours, theirs in zip(got.caches, expected.caches, strict=True):
        np.testing.assert_allclose(ours.keys, theirs.keys, atol=1e-5)
        np.testing.assert_allclose(ours.values, theirs.values, atol=1e-5)


def test_a_stored_voice_is_as_good_as_its_frames(small, random_module):
    """Input embeddings and the reference's own token ring, which has a column more than ours."""
    config = as_personaplex(replace(small.config, dep_q=4, context=16))
    lm, params = random_module(lambda: Moshi(config, rngs=nnx.Rngs(0)))
    frames, count = tokens_of(lm, 1, 7, 4), 6
    users = tokens_of(lm, 5, 1, 3)[:, :, -2:]
    state = jax.jit(lambda p: by_steps(lm, p, init_state(lm, 1), frames, jnp.array([7])))(params)
    expected = jax.jit(lambda p, s: free(lm, p, s, users))(params, state)

    # Position p + 1 + delay of every stream holds frame p; positions up to the delay are initial.
    codes, delays = np.asarray(frames)[0].T, config.delays
    grid = np.zeros((5, 12), np.int32)
    for k, delay in enumerate(delays):
        grid[k, : delay + 1] = config.initial_tokens[k]
        grid[k, delay + 1 : delay + 7] = codes[k, 1:7]  # call 0 is not heard
    embedded = bind(lm, params).embed(jnp.asarray(grid[None, :, :count]))[0]
    ring = np.zeros((5, config.max_delay + 3), np.int32)
    for k, delay in enumerate(delays):
        for position in range(count + delay + 1):
            ring[k, position % ring.shape[1]] = grid[k, position]
    padded = jnp.pad(embedded, ((0, 3), (0, 0)), constant_values=9.0)
    replayed = jax.jit(
        lambda p: prefill_embeddings(
            lm, p, init_state(lm, 1), padded, jnp.asarray(ring), jnp.asarray(count)
        )
    )(params)
    assert replayed.offset.tolist() == state.offset.tolist() == [7]
    got = jax.jit(lambda p, s: free(lm, p, s, users))(params, replayed)
    np.testing.assert_array_equal(got, expected)


def test_guided_states_are_refused(small):
    sampling = Sampling.greedy(Guidance(coefficient=2.0, no_text=True))
    state = init_state(small.lm, 1, sampling=sampling)
    with pytest.raises(ValueError, match=r"prompts are for sessions without guidance"):
        prefill(small.lm, small.params, state, tokens_of(small.lm, 1, 2, 0), jnp.array([2]))
