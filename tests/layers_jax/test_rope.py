import jax.numpy as jnp
import numpy as np
import pytest

from layers_jax.rope import apply_rope


@pytest.fixture(scope="module")
def ops(golden):
    return golden("ops")


def positions_of(ops, length):
    return jnp.asarray(ops.tensors["inputs/rope_offset"][:, None] + np.arange(length))


@pytest.mark.parametrize("layout, name", [("interleaved", "rope"), ("half", "rope_concat")])
def test_rotations_are_those_of_the_reference(ops, layout, name):
    """Heads come before time there. At offset 2990 an f32 angle is only good to 1e-4."""
    period = ops.config["max_period"]
    for part in ("q", "k"):
        x = ops.tensors[f"inputs/{part}"].swapaxes(1, 2)
        got = apply_rope(
            jnp.asarray(x), positions_of(ops, x.shape[1]), max_period=period, layout=layout
        )
        expected = ops.tensors[f"expected/{name}_{part}"].swapaxes(1, 2)
        assert ops.tensors["inputs/rope_offset"].tolist() == [0, 17, 2990]
        np.testing.assert_allclose(got[:2], expected[:2], atol=1e-5)
        np.testing.assert_allclose(got[2], expected[2], atol=1e-4)


def test_the_two_layouts_are_one_permutation_apart():
    rng = np.random.default_rng(0)
    x, at = jnp.float32(rng.standard_normal((1, 5, 2, 8))), jnp.arange(5)[None]
    pairs = np.arange(8).reshape(4, 2).T.reshape(-1)  # (2i, 2i + 1) -> (i, i + 4)
    half = apply_rope(x[..., pairs], at, max_period=100, layout="half")
    np.testing.assert_array_equal(half, apply_rope(x, at, max_period=100)[..., pairs])


def test_products_depend_on_the_distance_alone():
    rng = np.random.default_rng(1)
    q, k = (jnp.float32(rng.standard_normal((1, 1, 1, 8))) for _ in range(2))

    def product(at_q, at_k):
        turned = [
            apply_rope(x, jnp.array([[at]]), max_period=50) for x, at in ((q, at_q), (k, at_k))
        ]
        return float((turned[0] * turned[1]).sum())

    assert product(9, 4) == pytest.approx(product(25, 20), abs=1e-5)
    assert product(9, 4) != pytest.approx(product(9, 5), abs=1e-3)


def test_position_zero_changes_nothing_and_the_format_is_kept():
    x = jnp.arange(8, dtype=jnp.bfloat16).reshape(1, 1, 1, 8)
    got = apply_rope(x, jnp.zeros((1, 1), int), max_period=10)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, x)
