import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers_jax import Linear, Precision, bind, split
from layers_jax.functional import abstract


class Tower(nnx.Module):
    """Two layers in a list, one beside it."""

    def __init__(self, rngs):
        def linear():
            return Linear(3, 3, precision=Precision.f32(), rngs=rngs)

        self.layers = nnx.List([linear(), linear()])
        self.head = linear()

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


@pytest.fixture(scope="module")
def tower(random_module):
    return random_module(lambda: Tower(nnx.Rngs(0)))


def test_parameters_are_plain_dicts_and_lists_of_arrays(tower):
    module, params = tower
    _, shapes = split(module)
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == {
        "layers": [{"kernel": (3, 3)}, {"kernel": (3, 3)}],
        "head": {"kernel": (3, 3)},
    }
    assert jax.tree.structure(params) == jax.tree.structure(shapes)


def test_an_abstract_module_holds_no_arrays(tower):
    leaves = jax.tree.leaves(split(abstract(lambda: Tower(nnx.Rngs(0))))[1])
    assert {type(leaf) for leaf in leaves} == {jax.ShapeDtypeStruct}


def test_binding_uses_the_given_values_and_leaves_the_module_alone(tower):
    module, params = tower
    x = jnp.eye(3)
    kernels = [layer["kernel"] for layer in params["layers"]] + [params["head"]["kernel"]]
    got = jax.jit(lambda params, x: bind(module, params)(x))(params, x)
    np.testing.assert_allclose(got, np.linalg.multi_dot([x, *kernels]), atol=1e-6)
    assert {type(leaf) for leaf in jax.tree.leaves(split(module)[1])} == {jax.ShapeDtypeStruct}


def test_splitting_a_bound_module_gives_its_parameters_back(tower):
    module, params = tower
    again = split(bind(module, params))[1]
    assert jax.tree.structure(again) == jax.tree.structure(params)
    assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(params)))


def test_gradients_have_the_tree_of_the_parameters(tower):
    module, params = tower
    grads = jax.grad(lambda params: bind(module, params)(jnp.ones((1, 3))).sum())(params)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert all(np.any(np.asarray(grad) != 0) for grad in jax.tree.leaves(grads))


@pytest.mark.parametrize("damage", ["missing", "extra", "short list", "list as dict"])
def test_a_tree_of_another_model_is_refused(tower, damage):
    module, params = tower
    wrong = {
        "missing": {"layers": params["layers"]},
        "extra": {**params, "bias": jnp.zeros(3)},
        "short list": {**params, "layers": params["layers"][:1]},
        "list as dict": {**params, "layers": dict(enumerate(params["layers"]))},
    }[damage]
    with pytest.raises(ValueError, match=r"parameters do not fit Tower: got .*, expected .*; use"):
        bind(module, wrong)
