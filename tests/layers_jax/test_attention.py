import jax
import jax.numpy as jnp
import numpy as np
import pytest

from layers_jax import RingCache, ring_positions
from layers_jax.attention import (
    UNWRITTEN,
    NewTokens,
    attend,
    attend_and_write,
    positions_left,
    visible,
    write_and_attend,
)

CAPACITY = 6


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("rule, name", [("kyutai", "kyutai"), ("personaplex", "fork")])
def test_slots_hold_the_positions_of_the_reference(golden, rule, name, length):
    """A slot of the fork that says a future position is its oldest one, hidden by causality."""
    expected = golden("ops").tensors[f"expected/ring_positions_{name}_T{length}"]
    offsets = jnp.arange(len(expected)) * length
    got = ring_positions(offsets, length, CAPACITY, rule)
    assert UNWRITTEN == -1
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "rule, length, keys_seen",
    [
        ("kyutai", 1, [6]),
        ("kyutai", 2, [5, 6]),  # the second token has taken the slot of the oldest
        ("personaplex", 1, [5]),
        ("personaplex", 2, [4, 5]),
    ],
)
def test_window_law_once_the_ring_is_full(rule, length, keys_seen):
    """Each token of a call sees itself and the tokens just before it, none twice, no other."""
    offset = np.array([6, 8, 60], np.int32)
    positions = offset[:, None] + np.arange(length, dtype=np.int32)
    held = np.asarray(ring_positions(jnp.asarray(offset), length, CAPACITY, rule))
    seen = np.asarray(visible(jnp.asarray(positions), jnp.asarray(held), CAPACITY))
    for row, token in np.ndindex(len(offset), length):
        at, count = positions[row, token], keys_seen[token]
        got = sorted(held[row, seen[row, token]])
        assert got == list(range(at - count + 1, at + 1))


def test_before_the_wrap_both_rules_see_all_of_the_past():
    offset = jnp.arange(CAPACITY - 1)
    for rule in ("kyutai", "personaplex"):
        seen = visible(offset[:, None], ring_positions(offset, 1, CAPACITY, rule), CAPACITY)
        assert np.sum(seen, axis=(1, 2)).tolist() == [1, 2, 3, 4, 5]


def random(*shape, seed=0):
    return jnp.float32(np.random.default_rng(seed).standard_normal(shape))


def test_masked_rows_of_a_ring_keep_every_bit_whatever_is_written():
    full = RingCache(keys=random(2, 1, 4, 2), values=random(2, 1, 4, 2, seed=1))
    nan = jnp.full((2, 1, 1, 2), jnp.nan)
    new = full.write(nan, nan, jnp.array([5, 5]), jnp.array([[True], [False]]))
    for old, now in ((full.keys, new.keys), (full.values, new.values)):
        assert np.asarray(now)[1].tobytes() == np.asarray(old)[1].tobytes()
        assert np.isnan(now[0, :, 1]).all() and not np.isnan(now[0, :, 2:]).any()


def test_each_row_writes_at_its_own_place_and_wraps_around():
    empty = RingCache.zeros(2, 1, 3, 1, jnp.bfloat16)
    tokens = jnp.array([[1.0, 2.0], [3.0, 4.0]])[:, :, None, None]
    ring = empty.write(tokens, 10 * tokens, jnp.array([0, 2]), jnp.ones((2, 1), bool))
    assert ring.keys[:, 0, :, 0].tolist() == [[1, 2, 0], [4, 0, 3]]
    assert ring.values[:, 0, :, 0].tolist() == [[10, 20, 0], [40, 0, 30]]
    assert ring.keys.dtype == jnp.bfloat16 and ring.capacity == 3


def test_attention_is_the_softmax_of_the_scaled_products():
    """R query heads share a key head, as if the key head were repeated."""
    q, k, v = random(2, 3, 2, 2, 4), random(2, 2, 5, 4, seed=1), random(2, 2, 5, 4, seed=2)
    seen = jnp.asarray(np.tril(np.ones((3, 5), bool), 2))[None].repeat(2, 0)
    got = np.asarray(attend(q, [(k, v)], seen, "highest"))
    q, k, v, seen = map(np.asarray, (q, k, v, seen))
    for b, t, n, r in np.ndindex(2, 3, 2, 2):
        keep = seen[b, t]
        scores = k[b, n, keep] @ q[b, t, n, r] / 2
        weights = np.exp(scores) / np.exp(scores).sum()
        expected = weights @ v[b, n, keep]
        np.testing.assert_allclose(got[b, t, n, r], expected, atol=1e-5)


def test_a_row_that_sees_nothing_stays_finite():
    q, k = random(1, 1, 1, 1, 4), random(1, 1, 3, 4)
    assert np.isfinite(attend(q, [(k, k)], jnp.zeros((1, 1, 3), bool), "highest")).all()


def test_softmax_is_taken_in_f32():
    """Equal scores over 300 keys: bf16 weights summed in bf16 would not reach 1."""
    q, k = jnp.zeros((1, 1, 1, 1, 2), jnp.bfloat16), jnp.zeros((1, 1, 300, 2), jnp.bfloat16)
    got = jax.jit(attend, static_argnums=3)(q, [(k, k + 1)], jnp.ones((1, 1, 300), bool), "default")
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(got), 1, atol=4e-3)


def test_single_tokens_of_a_row_can_be_kept_out():
    empty = RingCache.zeros(1, 1, 3, 1, jnp.float32)
    tokens = jnp.array([[1.0, 2.0, 3.0]])[:, :, None, None]
    ring = empty.write(tokens, tokens, jnp.array([0]), jnp.array([[True, False, True]]))
    assert ring.keys[0, 0, :, 0].tolist() == [1, 0, 3]


def test_keys_in_two_pieces_are_as_good_as_in_one():
    q, k, v = random(2, 3, 2, 2, 4), random(2, 2, 5, 4, seed=1), random(2, 2, 5, 4, seed=2)
    seen = jnp.asarray(np.random.default_rng(3).random((2, 3, 5)) < 0.6).at[:, :, 0].set(True)
    parts = [(k[:, :, :2], v[:, :, :2]), (k[:, :, 2:], v[:, :, 2:])]
    whole = attend(q, [(k, v)], seen, "highest")
    np.testing.assert_allclose(attend(q, parts, seen, "highest"), whole, atol=1e-6)


def test_slots_about_to_be_written_are_no_longer_seen():
    left = positions_left(jnp.array([0, 5, 11]), 2, CAPACITY, "kyutai")
    assert left.tolist() == [
        [-1, -1, -1, -1, -1, -1],
        [-1, 1, 2, 3, 4, -1],
        [-1, 7, 8, 9, 10, -1],
    ]


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("rule", ["kyutai", "personaplex"])
def test_reading_first_and_writing_first_are_the_same(rule, length):
    """TPUs and CPUs read first, GPUs write first; the tests of transformers only see the CPU's."""
    offset = jnp.array([0, 3, 5, 6, 10, 61])
    batch = len(offset)
    positions = offset[:, None] + jnp.arange(length)
    ring = RingCache(
        keys=random(batch, 2, CAPACITY, 4, seed=1), values=random(batch, 2, CAPACITY, 4, seed=2)
    )
    left = positions_left(offset, length, CAPACITY, rule)
    new = NewTokens(
        queries=random(batch, length, 2, 3, 4, seed=3),
        keys=random(batch, length, 2, 4, seed=4),
        values=random(batch, length, 2, 4, seed=5),
        offset=offset,
        kept=jnp.ones((batch, 1), bool),
        seen=visible(positions, jnp.concatenate([left, positions], axis=1), CAPACITY),
    )
    heads, after = attend_and_write(new, ring, matmul="highest")
    expected, written = write_and_attend(new, ring, matmul="highest")
    np.testing.assert_allclose(heads, expected, atol=1e-6)
    np.testing.assert_array_equal(after.keys, written.keys)
    np.testing.assert_array_equal(after.values, written.values)
    # What both should be: the window of the reference, from the ring after the write.
    seen = visible(positions, ring_positions(offset, length, CAPACITY, rule), CAPACITY)
    whole = attend(new.queries, [(written.keys, written.values)], seen, "highest")
    np.testing.assert_allclose(heads, whole, atol=1e-6)
