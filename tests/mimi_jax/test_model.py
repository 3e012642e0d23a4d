import jax
import jax.numpy as jnp
import numpy as np

from layers_jax import Precision, bind, reset_rows, split
from mimi_jax import init_state


def test_the_codec_is_always_f32(small):
    assert small.mimi.encoder.input.precision == Precision.f32()
    assert {leaf.dtype for leaf in jax.tree.leaves(split(small.mimi)[1])} == {jnp.dtype("float32")}


def test_down_sampling_is_dense_and_up_sampling_depth_wise(small):
    _, shapes = split(small.mimi)
    assert shapes["downsample"]["kernel"].shape == (4, 8, 8)
    assert shapes["upsample"]["kernel"].shape == (4, 8)
    assert set(shapes["downsample"]) == set(shapes["upsample"]) == {"kernel"}


def test_a_late_starter_begins_on_copies_of_its_own_first_column(small):
    """The down-sampler's start is a matter of the row, not of the call."""
    run = small.compiled(
        lambda mimi, params, pcm, state, mask: bind(mimi, params).latent_step(pcm, state, mask)
    )
    pcm = np.random.default_rng(0).uniform(-1, 1, (3, 2, 8)).astype(np.float32)
    fresh = init_state(small.mimi, 2).encoder
    first, after = run(pcm[0], fresh, np.array([True, False]))
    late = np.stack([pcm[1, 0], pcm[0, 0]])  # the second row starts now, with the first's frame
    second, after = run(late, after, np.array([True, True]))
    np.testing.assert_allclose(second[1], first[0], atol=1e-6)
    after = reset_rows(jnp.array([True, False]), fresh, after)
    third, _ = run(np.stack([pcm[0, 0], pcm[1, 0]]), after, np.array([True, True]))
    np.testing.assert_allclose(third[0], first[0], atol=1e-6)
    np.testing.assert_allclose(third[1], second[0], atol=1e-5)
    assert not np.allclose(second[0], first[0])
