import jax
import jax.numpy as jnp
import numpy as np

from layers_jax import reset_rows, select_rows
from mimi_jax import MimiState, encode_step, init_state

FRAME = 8


def frames(count, batch, seed=0):
    rng = np.random.default_rng(seed)
    pcm = rng.uniform(-1, 1, (count, batch, FRAME)).astype(np.float32)
    return pcm, rng.integers(0, 7, (count, batch, 3)).astype(np.int32)


def bits(state, row):
    return [np.asarray(leaf)[row].tobytes() for leaf in jax.tree.leaves(state)]


def test_every_leaf_has_the_batch_first(small):
    leaves = jax.tree.leaves(init_state(small.mimi, 3))
    assert {leaf.shape[0] for leaf in leaves} == {3}
    shapes = jax.tree.map(lambda leaf: leaf.shape, init_state(small.mimi, 3))
    assert isinstance(shapes, MimiState)
    assert shapes.encoder.offset == (3,)
    assert shapes.decoder.caches[0].keys == (3, 2, 6, 4)


def test_no_two_leaves_share_a_buffer(small):
    """Each is donated on its own."""
    leaves = jax.tree.leaves(init_state(small.mimi, 1))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


def test_a_masked_row_keeps_every_bit_whatever_it_is_given(small, small_frame):
    pcm, codes = frames(2, 2)
    state, _, _ = small_frame(init_state(small.mimi, 2), pcm[0], codes[0], np.ones(2, bool))
    before = [bits(state, row) for row in range(2)]
    pcm[1, 1], codes[1, 1] = np.nan, -2
    state, _, _ = small_frame(state, pcm[1], codes[1], np.array([True, False]))
    assert bits(state, 1) == before[1]
    assert bits(state, 0) != before[0]
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state))


def test_a_reset_row_is_fresh_bit_for_bit_after_nan(small, small_frame):
    """A NaN that got into a state, however it did, is gone."""
    pcm, codes = frames(2, 2)
    state, _, _ = small_frame(init_state(small.mimi, 2), pcm[0], codes[0], np.ones(2, bool))
    state = jax.tree.map(
        lambda leaf: leaf.at[0].set(jnp.nan) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        state,
    )
    other = bits(state, 1)
    fresh = init_state(small.mimi, 2)
    state = reset_rows(jnp.array([True, False]), fresh, state)
    assert bits(state, 0) == bits(fresh, 0)
    assert bits(state, 1) == other
    _, _, audio = small_frame(state, pcm[1], codes[1], np.ones(2, bool))
    assert np.isfinite(audio).all()


def test_each_half_counts_its_own_columns(small):
    """Two a frame; a half that does not run does not count."""
    encode = small.compiled(encode_step)
    state, _ = encode(init_state(small.mimi, 2), np.zeros((2, 8), np.float32), np.ones(2, bool))
    assert state.encoder.offset.tolist() == [2, 2]
    assert state.decoder.offset.tolist() == [0, 0]


def test_rows_can_be_repeated_and_reordered(small, small_frame):
    pcm, codes = frames(3, 2)
    state = init_state(small.mimi, 2)
    for call in range(2):
        state, _, _ = small_frame(state, pcm[call], codes[call], np.array([True, call == 0]))
    picked = select_rows(state, jnp.array([1, 1]))
    assert bits(picked, 0) == bits(picked, 1) == bits(state, 1)
    ran, swapped = np.ones(2, bool), select_rows(state, jnp.array([1, 0]))
    _, *expected = small_frame(state, pcm[2], codes[2], ran)
    _, *got = small_frame(swapped, pcm[2, ::-1], codes[2, ::-1], ran)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one[::-1], other)
