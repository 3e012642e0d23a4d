import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench.weights import random_weights


def shapes(**leaves):
    return {name: jax.ShapeDtypeStruct(*leaf) for name, leaf in leaves.items()}


def test_values_keep_the_size_of_activations():
    tree = {
        "head": shapes(kernel=((400, 3, 20), jnp.bfloat16)),
        "norm": shapes(scale=((7,), jnp.float32)),
        "small": shapes(kernel=((256, 64), jnp.int8), scale=((64,), jnp.float32)),
    }
    made = random_weights(tree)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), made) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), tree
    )
    assert 0.9 < np.float32(made["head"]["kernel"]).std() * 20 < 1.1
    assert np.all(made["norm"]["scale"] == 1)
    wide = np.float32(made["small"]["kernel"]) * np.float32(made["small"]["scale"])
    assert 0.9 < wide.std() * 16 < 1.1


def test_layers_differ_and_a_seed_repeats():
    layer = shapes(kernel=((8, 8), jnp.float32))
    one, two = random_weights({"layers": [layer, layer]})["layers"]
    assert np.any(one["kernel"] != two["kernel"])
    again = random_weights({"layers": [layer, layer]})["layers"][0]
    np.testing.assert_array_equal(one["kernel"], again["kernel"])
    other = random_weights({"layers": [layer]}, seed=1)["layers"][0]
    assert np.any(one["kernel"] != other["kernel"])


def test_each_device_makes_its_own_shard():
    if jax.device_count() < 2:
        pytest.skip("needs two devices (tests/conftest.py emulates eight)")
    mesh = jax.make_mesh((2,), ("x",), (jax.sharding.AxisType.Auto,))
    across = jax.sharding.NamedSharding(mesh, jax.P(None, "x"))
    tree = shapes(kernel=((8, 6), jnp.float32))
    made = random_weights(tree, {"kernel": across})["kernel"]
    assert {shard.data.shape for shard in made.addressable_shards} == {(8, 3)}
    np.testing.assert_array_equal(made, random_weights(tree)["kernel"])
