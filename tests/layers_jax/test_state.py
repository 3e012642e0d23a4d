import jax
import jax.numpy as jnp
import numpy as np

from layers_jax import masked_update, reset_rows, select_rows


def state(value):
    return {
        "small": jnp.full(3, value),
        "rings": [jnp.full((3, 2, 2), value), jnp.full((3, 1), int(np.nan_to_num(value)))],
    }


def rows(tree, row):
    return [np.asarray(leaf)[row] for leaf in jax.tree.leaves(tree)]


def test_masked_rows_keep_every_bit_and_the_others_are_new():
    old, new = state(-0.0), state(jnp.nan)
    got = masked_update(jnp.array([True, False, True]), new, old)
    for leaf, kept in zip(rows(got, 1), rows(old, 1), strict=True):
        assert leaf.tobytes() == kept.tobytes()
    assert np.isnan(got["small"][jnp.array([0, 2])]).all()
    assert np.isnan(got["rings"][0][jnp.array([0, 2])]).all()
    assert got["rings"][1].dtype == jnp.int32


def test_a_reset_row_is_fresh_even_after_nan():
    fresh, broken = state(1.5), state(jnp.nan)
    got = reset_rows(jnp.array([False, True, False]), fresh, broken)
    for leaf, wanted in zip(rows(got, 1), rows(fresh, 1), strict=True):
        assert leaf.tobytes() == wanted.tobytes()
    assert np.isnan(got["small"][0]) and np.isnan(got["small"][2])


def test_selected_rows_come_in_order_and_may_repeat():
    numbers = {"a": jnp.arange(3), "b": [jnp.arange(6).reshape(3, 2)]}
    got = select_rows(numbers, jnp.array([2, 0, 2, 2]))
    assert got["a"].tolist() == [2, 0, 2, 2]
    assert got["b"][0].tolist() == [[4, 5], [0, 1], [4, 5], [4, 5]]
