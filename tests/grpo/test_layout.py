"""Cut leaves: where, and that gather, gradient and norm are those of the whole leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from grpo.layout import exchange_columns, make_layout
from grpo.mesh import AXES, make_mesh

SHAPES = [(1, (1,)), (2, (2,)), (4, (2, 2)), (8, (2, 4)), (8, (2, 2, 2))]


def tree(rng):
    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "temporal": {"layers": {"kernel": normal(3, 8, 16), "norm": {"scale": normal(3, 5)}}},
        "text_embedding": {"table": normal(24, 8)},
        "out_norm": {"scale": normal(5)},
    }


@pytest.fixture(scope="module")
def params():
    return tree(np.random.default_rng(0))


def sharded(devices, shape):
    return make_mesh(devices, mapping="shard_map", shape=shape)


def test_the_first_dimension_is_cut_but_never_the_layers_and_tables_by_columns(params):
    layout = make_layout(params, sharded(8, (2, 4)))
    assert layout.cuts["temporal"]["layers"]["kernel"] == 1
    assert layout.cuts["temporal"]["layers"]["norm"]["scale"] == -1
    assert layout.cuts["text_embedding"]["table"] == 1
    assert layout.specs["text_embedding"]["table"] == PartitionSpec(None, ("data", "model"))
    assert set(jax.tree.leaves(make_layout(params, make_mesh(8)).cuts)) == {-1}


def test_a_matrix_that_nothing_divides_is_named(params):
    odd = {**params, "text_head": {"kernel": np.zeros((6, 10))}}
    with pytest.raises(ValueError, match=r"text_head.*\(6, 10\), expected a dimension that 4"):
        make_layout(odd, sharded(4, (2, 2)))


@pytest.mark.parametrize(("devices", "shape"), SHAPES)
def test_blocks_gather_to_the_leaf_and_gradients_are_those_of_the_sum(devices, shape, params):
    """d/dw sum_d loss_d(w), with another loss on every device."""
    mesh = sharded(devices, shape)
    layout = make_layout(params, mesh)

    def loss(whole, weight):
        return sum(jnp.sum(weight * jnp.sin(weight * leaf)) for leaf in jax.tree.leaves(whole))

    def program(blocks, weight):
        def local(blocks):
            return loss(layout.gather(blocks, layout.cuts), weight)

        gradient = layout.reduce(jax.grad(local)(blocks))
        return layout.gather(blocks, layout.cuts), gradient, layout.norm(gradient)

    mapped = mesh.map(program, in_axes=(layout.specs, 0), out_axes=(None, layout.specs, None))
    weights = np.linspace(0.5, 2, devices, dtype=np.float32)
    whole, gradient, norm = mapped(mesh.put(params, layout.specs), weights)
    jax.tree.map(np.testing.assert_array_equal, whole, params)

    expected = jax.grad(lambda p: sum(loss(p, w) for w in weights))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), gradient, expected)
    squares = sum(float(np.square(leaf).sum()) for leaf in jax.tree.leaves(expected))
    np.testing.assert_allclose(norm, squares**0.5, rtol=1e-5)


@pytest.mark.parametrize(("devices", "shape"), [(8, (2, 4)), (8, (2, 2, 2)), (2, (2,))])
def test_columns_looked_up_for_everyone_are_the_rows_of_each(devices, shape):
    rng = np.random.default_rng(1)
    table = rng.normal(size=(10, 16)).astype(np.float32)
    tokens = rng.integers(0, 10, (devices, 3, 5)).astype(np.int32)
    mesh = sharded(devices, shape)
    axes = AXES[: len(shape)]

    def program(columns, mine):
        def lookup(columns):
            everyone = jax.lax.all_gather(mine, axes)
            return exchange_columns(columns[everyone], axes)

        rows, pull = jax.vjp(lookup, columns)
        return rows, pull(rows)[0]

    spec = PartitionSpec(None, axes)
    mapped = mesh.map(program, in_axes=(spec, 0), out_axes=(0, spec))
    rows, gradient = mapped(mesh.put(table, spec), tokens)
    np.testing.assert_array_equal(rows, table[tokens])
    counts = np.bincount(tokens.ravel(), minlength=10)[:, None]
    np.testing.assert_allclose(gradient, counts * table, rtol=1e-5)
