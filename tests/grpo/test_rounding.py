"""Master weights to bf16: neighbours only, unbiased, seeded, and blind to how leaves are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.layout import make_layout
from grpo.mesh import make_mesh
from grpo.rounding import make_rounder


@pytest.fixture(scope="module")
def master():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 16, 24)).astype(np.float32)
    return {"temporal": {"layers": {"kernel": kernel}}, "scale": kernel[0, :, 0].copy()}


def rounded(master, step, *, seed=1, devices=1, shape=None, rounding="stochastic"):
    mesh = make_mesh(devices, mapping="pmap" if shape is None else "shard_map", shape=shape)
    layout = make_layout(master, mesh)
    program = mesh.map(
        make_rounder(layout, jnp.bfloat16, rounding, seed),
        in_axes=(layout.specs, None),
        out_axes=layout.specs,
    )
    return jax.device_get(program(mesh.put(master, layout.specs), jnp.int32(step)))


def bits(x):
    return np.asarray(x, np.float32).view(np.uint32)


def test_values_go_to_one_of_their_two_neighbours(master):
    got = rounded(master, 0)["temporal"]["layers"]["kernel"]
    kernel = master["temporal"]["layers"]["kernel"]
    down = bits(kernel) & 0xFFFF0000
    assert np.isin(bits(got) - down, [0, 0x10000]).all()
    up = (bits(got) != down).mean()
    assert abs(up - (bits(kernel) & 0xFFFF).mean() / 65536) < 0.05


def test_the_mean_is_the_master(master):
    draws = np.mean([rounded(master, step)["scale"].astype(np.float32) for step in range(200)], 0)
    ulp = 2.0 ** (np.floor(np.log2(np.abs(master["scale"]))) - 7)
    nearest = master["scale"].astype(jnp.bfloat16).astype(np.float32)
    assert (np.abs(draws - master["scale"]) < 0.15 * ulp).all()  # 4 sigma
    assert (np.abs(nearest - master["scale"]) / ulp).max() > 0.3


def test_draws_follow_seed_and_step_and_nothing_else(master):
    one = rounded(master, 3)
    for other in (rounded(master, 3, devices=4, shape=(2, 2)), rounded(master, 3, devices=8)):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    for other in (rounded(master, 4), rounded(master, 3, seed=2)):
        assert (one["temporal"]["layers"]["kernel"] != other["temporal"]["layers"]["kernel"]).any()


def test_what_bf16_holds_is_left_alone_and_so_is_what_is_not_finite():
    exact = {"scale": np.array([0.0, -0.0, 1.5, -3.0, np.inf, -np.inf, np.nan], np.float32)}
    np.testing.assert_array_equal(rounded(exact, 0)["scale"].astype(np.float32), exact["scale"])


def test_nearest_is_a_cast(master):
    got = rounded(master, 0, rounding="nearest")
    expected = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), master)
    assert jax.tree.all(jax.tree.map(np.array_equal, got, expected))


def test_only_bf16_is_rounded_at_random(master):
    layout = make_layout(master, make_mesh(1))
    with pytest.raises(ValueError, match="rounding to float32, expected bfloat16"):
        make_rounder(layout, jnp.float32, "stochastic", 0)
