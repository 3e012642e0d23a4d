"""The mapping: splits, collectives, replicated results, donation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.mesh import AXES, make_mesh

AXIS = AXES[0]


def test_too_many_devices_is_an_error_that_names_both_counts():
    with pytest.raises(ValueError, match="99 devices wanted, 8 cpu devices present"):
        make_mesh(99)
    assert make_mesh().size == 8


@pytest.mark.parametrize("count", [1, 2, 8])
def test_split_argument_and_replicated_result(count):
    mesh = make_mesh(count)
    program = mesh.map(
        lambda scale, rows: jax.lax.psum(scale * rows.sum(), AXIS), in_axes=(None, 0), out_axes=None
    )
    rows = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    total = program(mesh.put(jnp.float32(2)), rows)
    assert total.shape == () and float(total) == 2 * rows.sum()
    assert total.sharding.device_set == set(mesh.devices)


def test_per_device_results_are_stacked_and_fed_back():
    mesh = make_mesh(4)
    program = mesh.map(lambda scale, row: scale * row, in_axes=(None, 0), out_axes=0)
    once = program(np.float32(3), np.arange(4, dtype=np.float32))
    np.testing.assert_array_equal(program(np.float32(3), once), 9 * np.arange(4))


def test_donated_state_is_reused_and_has_no_device_axis():
    mesh = make_mesh(4)
    program = mesh.map(
        lambda state, row: state + jax.lax.psum(row, AXIS),
        in_axes=(None, 0),
        out_axes=None,
        donate=(0,),
    )
    state = mesh.jit(lambda: jnp.zeros(5))()
    for _ in range(3):
        before, state = state, program(state, np.ones((4, 5), np.float32))
        assert before.is_deleted() and state.shape == (5,)
    np.testing.assert_array_equal(state, np.full(5, 12))


def test_jit_puts_its_result_on_every_device():
    mesh = make_mesh(2)
    tree = mesh.jit(lambda x: {"twice": 2 * x})(mesh.put(np.ones(3, np.float32)))
    assert tree["twice"].sharding.device_set == set(mesh.devices)
    assert tree["twice"].sharding.is_fully_replicated
