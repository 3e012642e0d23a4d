import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helium_jax import Guidance, Sampling, init_state, step
from helium_jax.guidance import guided, null_inputs
from layers_jax import reset_rows


def test_the_second_run_is_pushed_away_from():
    logits = jnp.array([[1.0, 2.0], [0.0, 1.0], [5.0, 0.0], [3.0, 2.0]])
    got = guided(logits, Guidance(coefficient=3.0))
    np.testing.assert_allclose(got, [[3.0, 4.0], [9.0, -4.0]])
    no_text = Guidance(coefficient=3.0, no_text=True)
    np.testing.assert_array_equal(guided(logits, no_text, text=True), logits[::2])
    np.testing.assert_allclose(guided(logits, no_text), got)


def test_what_the_second_run_does_not_see(small):
    """Delays are 0, 0, 1, 0, 1: a stream's first frames come after its initial tokens."""
    fed = jnp.arange(10).reshape(2, 5)
    position = jnp.array([1, 3])
    until = null_inputs(small.config, fed, position, Guidance(coefficient=2, masked_until=1))
    assert until.tolist() == [
        [0, 1, 2, 3, 4], [-1, -1, 2, -1, 4], [5, 6, 7, 8, 9], [5, 6, 7, 8, 9],
    ]  # fmt: skip
    no_text = null_inputs(small.config, fed, position, Guidance(coefficient=2, no_text=True))
    assert no_text[1].tolist() == [-1, 1, 2, 3, 4] and no_text[3, 0] == -1
    begins = null_inputs(
        small.config, fed, jnp.array([0, 0]), Guidance(coefficient=2, no_text=True)
    )
    assert begins.tolist() == [fed[0].tolist()] * 2 + [fed[1].tolist()] * 2


@pytest.fixture(scope="module")
def guided_run(small, small_users):
    """`run(guidance, batch)`: tokens and states of guided greedy sessions."""

    def run(guidance, users=small_users, reset=None):
        sampling = Sampling.greedy(guidance)
        fresh = init_state(small.lm, users.shape[1], sampling=sampling)

        def scan(params, users):
            def body(state, call):
                user, again = call
                state = reset_rows(again, fresh, state)
                return step(small.lm, params, state, user, sampling=sampling)

            again = jnp.zeros(users.shape[:2], bool) if reset is None else jnp.asarray(reset)
            return jax.lax.scan(body, fresh, (users, again))

        state, out = jax.jit(scan)(small.params, users)
        return state, np.asarray(out.tokens)

    return run


def test_a_coefficient_of_one_changes_nothing_and_more_does(
    small, guided_run, small_greedy, small_users
):
    _, plain = small_greedy(init_state(small.lm, 3), {"user": small_users})
    state, same = guided_run(Guidance(coefficient=1.0, no_text=True))
    np.testing.assert_array_equal(same, plain.tokens)
    assert state.caches[0].keys.shape[:2] == (3, 2)
    _, pushed = guided_run(Guidance(coefficient=3.0, no_text=True))
    assert (pushed != same).any()


def test_guided_sessions_are_each_as_if_alone(small_users, guided_run):
    guidance = Guidance(coefficient=2.0, masked_until=4)
    _, together = guided_run(guidance)
    _, alone = guided_run(guidance, small_users[:, 1:2])
    np.testing.assert_array_equal(together[:, 1:2], alone)
    reset = np.zeros((20, 3), bool)
    reset[6, 1] = True
    users = small_users.copy()
    users[6:, 1] = small_users[:14, 1]
    _, again = guided_run(guidance, users, reset)
    np.testing.assert_array_equal(again[6:, 1], together[:14, 1])
    np.testing.assert_array_equal(again[:, [0, 2]], together[:, [0, 2]])


def test_a_state_made_without_guidance_is_refused(small):
    user = jnp.zeros((1, 2), jnp.int32)
    sampling = Sampling.greedy(Guidance(coefficient=2.0, no_text=True))
    with pytest.raises(ValueError, match=r"but the state was made without it; give init_state the"):
        step(small.lm, small.params, init_state(small.lm, 1), user, sampling=sampling)
