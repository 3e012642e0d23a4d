import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers_jax import Precision, bind
from mimi_jax import QuantizerConfig
from mimi_jax.quantizer import MIN_USAGE, Codebook, SplitResidualVQ

CONFIG = QuantizerConfig(dimension=3, n_q=4, bins=5)


@pytest.fixture(scope="module")
def split_vq(random_module):
    module, params = random_module(
        lambda: SplitResidualVQ(6, CONFIG, precision=Precision.f32(), rngs=nnx.Rngs(0))
    )
    return bind(module, params), jax.tree.map(np.asarray, params)


@pytest.fixture(scope="module")
def latent():
    return np.random.default_rng(2).standard_normal((2, 7, 6)).astype(np.float32)


def book(table):
    table = jnp.asarray(table, jnp.float32)
    config = QuantizerConfig(bins=table.shape[0], dimension=table.shape[1])
    module = nnx.eval_shape(lambda: Codebook(config, rngs=nnx.Rngs(0)))
    return bind(
        module,
        {
            "embedding": table,
            "embedding_sum": table,
            "cluster_usage": jnp.ones(config.bins),
            "initialized": jnp.ones(1),
        },
    )


def test_code_vectors_are_sums_over_clamped_usage(golden):
    """What a conversion stores as `embedding`; a usage below 1e-5 counts as that."""
    from convert.mimi import code_vectors

    _, ops, _ = golden("ops")
    usage = ops["inputs/cluster_usage"]
    assert usage.min() == 0 < MIN_USAGE
    got = code_vectors(ops["inputs/embedding_sum"], usage)
    np.testing.assert_array_equal(got, ops["expected/codebook"])


def test_the_nearest_vector_is_chosen_and_the_first_of_equals():
    table = [[0.0, 1.0], [3.0, 0.0], [0.0, 1.0], [-4.0, 4.0]]
    residual = jnp.array([[[0.1, 0.9], [1.7, 0.0], [-2.0, 2.5], [9.0, 9.0]]])
    distance = np.linalg.norm(np.asarray(residual)[0, :, None] - np.array(table), axis=-1)
    assert book(table).nearest(residual).tolist() == [distance.argmin(-1).tolist()]
    assert book(table).nearest(jnp.array([[[0.0, 1.0]]])).tolist() == [[0]]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows_on_a_cpu_choose_as_many_rows_do(rows):
    """Differences up to two rows, products from three on: the same choices."""
    rng = np.random.default_rng(3)
    table, residual = rng.standard_normal((50, 6)), rng.standard_normal((1, rows, 6))
    distance = np.linalg.norm(residual[0, :, None] - table, axis=-1)
    program = jax.jit(book(table).nearest)
    assert program(jnp.float32(residual)).tolist() == [distance.argmin(-1).tolist()]
    products = program.lower(jnp.float32(residual)).as_text().count("dot_general")
    assert products == (rows > 2)


def test_codes_outside_the_book_contribute_nothing():
    vectors = book([[1.0, 2.0], [3.0, 4.0]]).lookup(jnp.array([[-2, -1, 0, 1, 2, 99]]))
    assert vectors.tolist() == [[[0, 0], [0, 0], [1, 2], [3, 4], [0, 0], [0, 0]]]


def test_both_chains_quantise_the_same_latent(split_vq, latent):
    """The acoustic chain does not start from what the semantic codebook left."""
    vq, params = split_vq
    got = np.asarray(vq.encode(jnp.asarray(latent), 4))
    assert got.shape == (2, 4, 7) and got.dtype == np.int32
    level = 0
    for name in ("semantic", "acoustic"):
        residual = latent @ params[name]["input_projection"]["kernel"]
        for codebook in params[name]["codebooks"]:
            table = codebook["embedding"]
            codes = np.linalg.norm(residual[:, :, None] - table, axis=-1).argmin(-1)
            np.testing.assert_array_equal(got[:, level], codes)
            residual = residual - table[codes]
            level += 1


def test_decoding_adds_the_vectors_of_each_chain(split_vq):
    vq, params = split_vq
    codes = np.random.default_rng(3).integers(0, 5, (2, 4, 6))

    def vectors(name, codes):
        tables = [codebook["embedding"] for codebook in params[name]["codebooks"]]
        total = sum(table[codes[:, k]] for k, table in enumerate(tables[: codes.shape[1]]))
        return total @ params[name]["output_projection"]["kernel"]

    for count in (1, 2, 4):
        expected = vectors("semantic", codes[:, :1])
        if count > 1:
            expected = expected + vectors("acoustic", codes[:, 1:count])
        got = vq.decode(jnp.asarray(codes[:, :count]))
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_fewer_codebooks_are_the_first_ones(split_vq, latent):
    vq, _ = split_vq
    all_codes = vq.encode(jnp.asarray(latent), 4)
    np.testing.assert_array_equal(vq.encode(jnp.asarray(latent), 2), all_codes[:, :2])
    np.testing.assert_array_equal(vq.encode(jnp.asarray(latent), 1), all_codes[:, :1])
