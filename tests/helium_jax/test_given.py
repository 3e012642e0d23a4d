"""What a step takes instead of drawing it, and the depth loop's early end."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from helium_jax import NOT_GIVEN, Given, Moshi, Sampling, as_personaplex, init_state, step
from layers_jax import bind


def play(model, users, *, given=None, sampling=None, **options):
    """A scan of calls; `given` has a leading call axis. Outputs as numpy arrays."""
    lm, params = model
    batch = 2 if users is None else users.shape[1]

    def scan(params, calls):
        def body(state, call):
            user, now = call
            return step(
                lm, params, state, user, given=now, sampling=sampling or Sampling(), **options
            )

        return jax.lax.scan(body, init_state(lm, batch, seed=3), calls)[1]

    calls = (None if users is None else jnp.asarray(users), given)
    length = None if users is not None or given is not None else 12
    if length:
        calls = (None, Given(text=jnp.full((length, batch), NOT_GIVEN)))
    return jax.tree.map(np.asarray, jax.jit(scan)(params, calls))


@pytest.fixture(scope="module")
def plex(small, random_module):
    config = as_personaplex(replace(small.config, dep_q=4))
    return random_module(lambda: Moshi(config, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def users(small):
    codes = np.random.default_rng(7).integers(0, small.config.card, (12, 2, 2))
    return codes.astype(np.int32)


def test_a_given_text_token_is_said_and_read_by_the_depth_transformer(small, users):
    model = small.lm, small.params
    text = np.full((12, 2), NOT_GIVEN, np.int32)
    text[5, 1] = 4
    free = play(model, users, given=Given(text=np.full((12, 2), NOT_GIVEN, np.int32)))
    told = play(model, users, given=Given(text=text))
    assert told.drawn[5, 1, 0] == 4 and told.log_probs[5, 1, 0] == 0
    assert told.tokens[6, 1, 0] == 4, "the frame comes out at the next call"
    assert (told.drawn[5, 1, 1:] != free.drawn[5, 1, 1:]).any()
    np.testing.assert_array_equal(told.drawn[:5], free.drawn[:5])
    np.testing.assert_array_equal(told.drawn[:, 0], free.drawn[:, 0])


def test_replaced_codes_are_fed_without_the_depth_transformer(small, users):
    """-1 is silence that no table knows; the program has no depth weights in it."""
    model = small.lm, small.params
    codes = np.full((12, 2, 2), -1, np.int32)
    codes[3] = 5
    out = play(model, users, given=Given(depth=codes))
    np.testing.assert_array_equal(out.drawn[..., 1:], codes)
    assert not out.log_probs[..., 1:].any() and out.log_probs[..., 0].all()
    assert out.tokens[4, :, 1].tolist() == [5, 5], "semantic, of the frame of call 3"
    assert out.tokens[3, :, 2].tolist() == [5, 5], "delayed, of the frame before"


def test_the_depth_loop_ends_where_the_user_begins_and_changes_no_token(plex, users):
    short, long = (play(plex, users, draw_user=draw) for draw in (None, True))
    for name in ("tokens", "valid", "drawn", "log_probs"):
        np.testing.assert_array_equal(getattr(short, name)[1:], getattr(long, name)[1:])
    assert short.tokens[2:, :, 3:].tolist() == users[1:-1].tolist(), "the user is echoed"
    lm, params = plex

    def flops(draw):
        def once(params, state, user):
            return step(lm, params, state, user, sampling=Sampling(), draw_user=draw)

        lowered = jax.jit(once).lower(params, init_state(lm, 2), jnp.asarray(users[0]))
        return lowered.compile().cost_analysis()["flops"]

    assert flops(None) < 0.85 * flops(True)


def test_a_session_may_change_between_hearing_a_user_and_drawing_one(plex, users):
    """Heard for four calls, then not: the same as given codes until then, drawn codes after."""
    mixed = users.copy()
    mixed[4:] = NOT_GIVEN
    out = play(plex, mixed, draw_user=True)
    heard = play(plex, users)
    np.testing.assert_array_equal(out.drawn[:4], heard.drawn[:4])
    # Frame 3's delayed code is still due at call 4; from call 5 on nothing is known.
    assert (out.drawn[4, :, 4] == users[3, :, 1]).all() and (out.log_probs[4, :, 3] != 0).all()
    assert (out.log_probs[6:, :, 3:] != 0).all()


def test_a_model_that_talks_to_itself_draws_all_streams(plex):
    out = play(plex, None)
    assert out.valid.all(axis=1).tolist() == [False, False, *[True] * 10]
    assert (out.log_probs[2:] != 0).all() and len(np.unique(out.tokens[2:, :, 3:])) > 5
    assert (out.tokens[:, 0] != out.tokens[:, 1]).any()


def test_the_last_codebook_is_blind_to_the_text_only_where_it_says_so(plex):
    """A layer's own attention is what is blinded: with one layer nothing else carries the text."""
    lm, params = plex
    depth = bind(lm, params).depth

    @partial(jax.jit, static_argnums=1)
    def logits(text, sees):
        seen = []

        def choose(k, values):
            seen.append(values)
            return jnp.array([1])

        depth.unroll(jnp.ones((1, lm.config.dim)), text, choose, last_sees_text=sees)
        return jnp.concatenate(seen)

    for sees in (True, False):
        one, other = (np.asarray(logits(jnp.array([text]), sees)) for text in (1, 2))
        changed = np.abs(one - other).max(axis=1) > 1e-6
        assert changed.tolist() == [True, True, True, sees]


@pytest.mark.parametrize(
    "given, message",
    [
        (Given(agent=jnp.zeros((1, 3), int)), r"given\.agent is \(1, 3\), expected \(1, 2\)"),
        (Given(depth=jnp.zeros((2, 2), int)), r"given\.depth is \(2, 2\), expected \(1, 2\)"),
    ],
)
def test_given_codes_of_another_shape_are_refused(small, given, message):
    user = jnp.zeros((1, 2), int)
    with pytest.raises(ValueError, match=message):
        step(
            small.lm, small.params, init_state(small.lm, 1), user, sampling=Sampling(), given=given
        )


def test_a_missing_user_is_refused_where_nobody_can_draw_one(small):
    with pytest.raises(ValueError, match=r"user_codes is None, expected 2 codebooks: the model"):
        step(small.lm, small.params, init_state(small.lm, 1), None, sampling=Sampling())
