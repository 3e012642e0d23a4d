import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helium_jax import apply_delays, undo_delays


@pytest.fixture(scope="module")
def ops(golden):
    recording = golden("ops")
    return recording.tensors, recording.provenance["options"]


def test_streams_are_shifted_as_in_the_reference(ops):
    tensors, options = ops
    padding = [options["delay_padding"]] * 4
    got = apply_delays(jnp.asarray(tensors["inputs/codes"]), options["delays"], padding)
    np.testing.assert_array_equal(got, tensors["expected/delayed"])


def test_and_shifted_back_with_what_is_lost_marked(ops):
    """The reference leaves NaN where ours are zeros."""
    tensors, options = ops
    got, known = undo_delays(jnp.asarray(tensors["inputs/undelay_in"]), options["delays"])
    mask = tensors["expected/undelay_mask"]
    np.testing.assert_array_equal(np.broadcast_to(known, mask.shape), mask)
    expected = np.where(mask[..., None], tensors["expected/undelayed"], 0)
    np.testing.assert_array_equal(got, expected)
    assert not mask.all()


def test_each_stream_starts_with_its_own_token():
    codes = jnp.arange(6).reshape(1, 2, 3)
    got = apply_delays(codes, (2, 1), (70, 80))
    assert got.tolist() == [[[70, 70, 0], [80, 3, 4]]]
    back, known = undo_delays(got, (2, 1))
    assert back.tolist() == [[[0, 0, 0], [3, 4, 0]]]
    assert known.tolist() == [[True, False, False], [True, True, False]]


def test_frames_that_are_lost_kill_no_gradient():
    def loss(grid):
        back, known = undo_delays(grid, (0, 1))
        return jnp.where(known[..., None], jnp.log(jnp.where(known[..., None], back, 1)), 0).sum()

    grads = jax.grad(loss)(jnp.full((1, 2, 3, 1), 2.0))
    assert grads[0, :, :, 0].tolist() == [[0.5, 0.5, 0.5], [0, 0.5, 0.5]]


def test_a_delay_too_many_is_an_error():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        apply_delays(jnp.zeros((1, 2, 3), int), (0, 1), (5, 5, 5))
