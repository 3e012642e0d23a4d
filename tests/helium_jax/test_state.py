import jax
import jax.numpy as jnp
import numpy as np

from helium_jax import init_state
from layers_jax import reset_rows, select_rows


def bits(state, row):
    return [np.asarray(leaf)[row].tobytes() for leaf in jax.tree.leaves(state)]


def test_every_leaf_has_the_batch_first_and_a_buffer_of_its_own(small):
    leaves = jax.tree.leaves(init_state(small.lm, 3))
    assert {leaf.shape[0] for leaf in leaves} == {3}
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


def test_sizes_follow_the_config(small):
    state = init_state(small.lm, 2)
    assert state.tokens.shape == (2, 5, 3)  # streams, longest delay + 2
    assert [ring.keys.shape for ring in state.caches] == [(2, 2, 6, 8)] * 2
    assert init_state(small.lm, 2, capacity=4).caches[1].values.shape == (2, 2, 4, 8)


def test_keys_belong_to_seed_and_row_id_not_to_the_place_in_the_batch(small):
    three = init_state(small.lm, 3, seed=5).keys
    swapped = init_state(small.lm, 2, seed=5, row_ids=jnp.array([2, 0])).keys
    np.testing.assert_array_equal(swapped, three[jnp.array([2, 0])])
    assert len({key.tobytes() for key in np.asarray(three)}) == 3
    assert not np.any(np.asarray(init_state(small.lm, 3, seed=6).keys) == three)


def test_a_seed_may_be_traced(small):
    keys = jax.jit(lambda seed: init_state(small.lm, 2, seed=seed).keys)(jnp.int32(5))
    np.testing.assert_array_equal(keys, init_state(small.lm, 2, seed=5).keys)


def test_a_masked_row_keeps_every_bit_whatever_the_user_says(small, small_greedy, small_users):
    state, _ = small_greedy(init_state(small.lm, 3), {"user": small_users})
    mask = np.ones(small_users.shape[:2], bool)
    mask[:, 1] = False
    strange = small_users.copy()
    strange[:, 1] = 10**6
    after, out = small_greedy(state, {"user": strange, "exec_mask": mask})
    assert bits(after, 1) == bits(state, 1)
    assert bits(after, 0) != bits(state, 0)
    assert after.offset.tolist() == [40, 20, 40]
    assert (out.tokens[:, 1] == -2).all() and (out.drawn[:, 1] == -2).all()
    assert not out.valid[:, 1].any() and out.valid[:, 0].all()


def test_a_reset_row_is_as_if_it_had_just_begun(small, small_greedy, small_users):
    reset = np.zeros(small_users.shape[:2], bool)
    reset[8, 1] = True
    restarted, heard = small_greedy(
        init_state(small.lm, 3), {"user": small_users, "reset_mask": reset}
    )
    late = np.ones_like(reset)
    late[:8, 1] = False
    begun, expected = small_greedy(
        init_state(small.lm, 3), {"user": small_users, "exec_mask": late}
    )
    for row in range(3):
        assert bits(restarted, row) == bits(begun, row)
    np.testing.assert_array_equal(heard.tokens[8:], expected.tokens[8:])
    assert heard.valid[:, 1].tolist() == [False, *[True] * 7, False, *[True] * 11]


def test_a_reset_leaves_no_nan_behind(small):
    fresh = init_state(small.lm, 2)
    broken = jax.tree.map(
        lambda leaf: jnp.full_like(leaf, jnp.nan if leaf.dtype == jnp.float32 else 77), fresh
    )
    got = reset_rows(jnp.array([False, True]), fresh, broken)
    assert bits(got, 1) == bits(fresh, 1)
    assert bits(got, 0) == bits(broken, 0)


def test_a_prefix_can_be_continued_several_times(small, small_greedy, small_users):
    """The rows of a group start from one session: its continuation is theirs."""
    same = np.repeat(small_users[:, :1], 3, axis=1)
    state, _ = small_greedy(init_state(small.lm, 3), {"user": small_users})
    group = select_rows(state, jnp.array([0, 0, 0]))
    _, expected = small_greedy(state, {"user": same})
    _, got = small_greedy(group, {"user": same})
    for row in range(3):
        np.testing.assert_array_equal(got.tokens[:, row], expected.tokens[:, 0])
    assert np.any(expected.tokens[:, 1] != expected.tokens[:, 0])
