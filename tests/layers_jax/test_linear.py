import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers_jax import Embedding, Linear, Precision, bind
from layers_jax.linear import quantize


@pytest.fixture(scope="module")
def table(golden):
    _, ops, _ = golden("ops")
    rows = ops["inputs/emb_table"]

    def build(precision=None):
        precision = precision or Precision.f32()
        embedding = nnx.eval_shape(
            lambda: Embedding(*rows.shape, precision=precision, rngs=nnx.Rngs(0))
        )
        return bind(embedding, {"table": jnp.asarray(rows)})

    return build, ops


def test_a_linear_layer_multiplies_from_the_right(random_module):
    module, params = random_module(
        lambda: Linear(4, 2, precision=Precision.f32(), rngs=nnx.Rngs(0))
    )
    x = jnp.arange(24, dtype=jnp.float32).reshape(2, 3, 4)
    got = bind(module, params)(x)
    np.testing.assert_allclose(got, np.asarray(x) @ np.asarray(params["kernel"]), rtol=1e-5)


def test_embeddings_are_those_of_the_reference(table):
    build, ops = table
    ids = ops["inputs/emb_ids"]
    assert -1 in ids and 0 in ids
    np.testing.assert_array_equal(build()(jnp.asarray(ids)), ops["expected/emb"])


def test_unknown_is_a_zero_vector_and_not_the_last_row(table):
    build, ops = table
    got = build()(jnp.array([-1, ops["inputs/emb_table"].shape[0] - 1]))
    assert not np.any(got[0]) and np.any(got[1])


def test_tables_laid_end_to_end_are_told_apart_by_their_first_row(table):
    build, ops = table
    got = build()(jnp.array([[2, -1], [0, 1]]), jnp.array([[5], [20]]))
    rows = ops["inputs/emb_table"]
    np.testing.assert_array_equal(got, [[rows[7], 0 * rows[0]], [rows[20], rows[21]]])


def test_embeddings_come_in_the_compute_format(table):
    build, _ = table
    assert build(Precision.bf16())(jnp.array([1, -1])).dtype == jnp.bfloat16


def test_initial_values_have_unit_gain():
    layer = Linear(400, 30, precision=Precision.bf16(), rngs=nnx.Rngs(0))
    kernel = np.asarray(layer.kernel[...], np.float32)
    assert layer.kernel.dtype == jnp.bfloat16
    assert 0.9 < kernel.std() * 20 < 1.1


def test_int8_matrices_are_within_half_a_step_of_each_channel():
    kernel = jax.random.normal(jax.random.key(0), (64, 3, 5)) * jnp.arange(
        5
    )  # one channel of zeros
    values, scale = quantize(kernel)
    assert values.dtype == jnp.int8 and scale.dtype == jnp.float32 and scale.shape == (3, 5)
    error = np.abs(np.asarray(values, np.float32) * np.asarray(scale) - np.asarray(kernel))
    assert (error <= np.broadcast_to(scale, error.shape) * 0.5001).all()
    assert np.abs(values).max(axis=0)[:, 1:].min() == 127 and not np.any(values[..., 0])


def test_an_int8_layer_is_its_dequantised_matrix(random_module):
    module, params = random_module(
        lambda: Linear(32, (2, 7), precision=Precision.int8_weights(), rngs=nnx.Rngs(0))
    )
    assert {name: leaf.dtype.name for name, leaf in params.items()} == {
        "kernel": "int8",
        "scale": "float32",
    }
    kernel = np.asarray(params["kernel"], np.float32) * np.asarray(params["scale"])
    x = np.asarray(jax.random.normal(jax.random.key(1), (3, 32), jnp.bfloat16), np.float32)
    got = bind(module, params)(jnp.asarray(x))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        np.asarray(got, np.float32), np.einsum("bd,dse->bse", x, kernel), rtol=2**-8, atol=1e-3
    )
