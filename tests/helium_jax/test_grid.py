"""The two timings, and what is given instead of drawn, on streams with known contents."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from helium_jax import NOT_GIVEN, NOT_READY, Given, as_personaplex
from helium_jax.grid import begin, finish

ONE = jnp.array([True])


def play(config, calls, given=None, user=True):
    """Calls of one session whose model draws 100 + call for all streams; what it fed and gave."""
    tokens = jnp.full((1, config.num_streams, config.max_delay + 2), NOT_READY, jnp.int32)
    offset, seen = jnp.array([0]), []
    for call in range(calls):
        heard = jnp.full((1, config.num_user_codebooks), 10 * call) if user else None
        now = given(call) if given else Given()
        grid = begin(config, tokens, offset, heard, now, ONE)
        drawn = jnp.full((1, 1 + config.dep_q), 100 + call)
        decided = jnp.where(grid.target == NOT_GIVEN, drawn, grid.target)
        tokens, frame, valid = finish(config, grid, decided)
        offset = offset + 1
        seen.append(
            (
                bool(grid.runs[0]), grid.fed[0].tolist(), grid.target[0].tolist(),
                frame[0].tolist() if valid[0] else None,
            )
        )  # fmt: skip
    return seen


def test_moshi_feeds_what_the_user_says_in_the_same_call(small):
    """Delays 0, 0, 1, 0, 1; initial tokens 13 for text and 11 for audio."""
    seen = play(small.config, 4)
    assert [fed for _, fed, _, _ in seen] == [
        [13, 11, 11, 11, 11],
        [100, 100, 11, 10, 11],
        [101, 101, 101, 20, 10],
        [102, 102, 102, 30, 20],
    ]
    assert [frame for *_, frame in seen] == [
        None,
        [100, 100, 101],
        [101, 101, 102],
        [102, 102, 103],
    ]


def test_personaplex_runs_no_model_at_first_and_feeds_a_call_later(small):
    config = as_personaplex(replace(small.config, dep_q=4))
    seen = play(config, 5)
    assert [runs for runs, *_ in seen] == [False, True, True, True, True]
    assert [fed for _, fed, _, _ in seen][1:] == [
        [13, 11, 11, 11, 11],
        [101, 101, 11, 10, 11],  # user frame 1 (10), one call later than Moshi's
        [102, 102, 102, 20, 10],
        [103, 103, 103, 30, 20],
    ]
    # The delayed codebooks of position 1 are held to the initial token, the user's are known.
    assert seen[1][2] == [NOT_GIVEN, NOT_GIVEN, 11, 10, 11]
    assert seen[2][2] == [NOT_GIVEN, NOT_GIVEN, NOT_GIVEN, 20, 10]
    frames = [frame for *_, frame in seen]
    assert frames[:2] == [None, None] and frames[2] == [101, 101, 102, 10, 10]


def test_without_a_user_the_model_draws_both(small):
    config = as_personaplex(replace(small.config, dep_q=4))
    seen = play(config, 3, user=False)
    assert seen[2][2] == [NOT_GIVEN] * 5


@pytest.mark.parametrize("personaplex", [False, True])
def test_given_codes_come_into_force_when_they_are_due(small, personaplex):
    """A delayed codebook of the frame that is given now is decided one position later."""
    config = small.config
    if personaplex:
        config = as_personaplex(replace(config, dep_q=4))

    def given(call):
        if call != 3:
            return Given()
        return Given(text=jnp.array([7]), agent=jnp.array([[8, 9]]))

    seen = play(config, 6, given)
    assert [target[:3] for _, _, target, _ in seen[3:]] == [
        [7, 8, NOT_GIVEN], [NOT_GIVEN, NOT_GIVEN, 9], [NOT_GIVEN] * 3,
    ]  # fmt: skip
    assert [7, 8, 9] in [frame[:3] for *_, frame in seen if frame]


def test_rows_that_do_not_run_keep_their_grid(small):
    config = small.config
    tokens = jnp.arange(2 * 5 * 3).reshape(2, 5, 3)
    mask, offset = jnp.array([True, False]), jnp.array([4, 4])
    grid = begin(config, tokens, offset, jnp.ones((2, 2), int), Given(), mask)
    after, frame, valid = finish(config, grid, jnp.full((2, 3), 5))
    np.testing.assert_array_equal(after[1], tokens[1])
    assert valid.tolist() == [True, False] and (frame[1] == NOT_READY).all()
    assert grid.fed[1].tolist() == list(config.initial_tokens)


def test_what_nobody_gave_is_fed_as_unknown(small):
    """A step that leaves the depth loop early must not look up a table's first row for it."""
    tokens = jnp.full((1, 5, 3), NOT_READY)
    grid = begin(small.config, tokens, jnp.array([5]), jnp.array([[1, 2]]), Given(), ONE)
    assert grid.fed[0].tolist() == [-1, -1, -1, 1, -1]
