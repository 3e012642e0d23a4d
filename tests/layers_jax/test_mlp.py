import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers_jax import Precision, bind
from layers_jax.mlp import GatedMlp, Mlp


@pytest.fixture(scope="module")
def ops(golden):
    return golden("ops").tensors


def block(kind, **params):
    hidden, dim = params["down"].shape
    module = nnx.eval_shape(lambda: kind(dim, hidden, precision=Precision.f32(), rngs=nnx.Rngs(0)))
    kernels = {name: {"kernel": jnp.float32(value)} for name, value in params.items()}
    return bind(module, kernels)


@pytest.mark.parametrize("name", ["gating", "gating_4x"])
def test_the_gated_block_is_that_of_the_reference(ops, name):
    """The gate is the first half of the fused matrix; swapped halves would not fit."""
    fused = ops[f"inputs/{name}_linear_in"]
    gate_up = fused.reshape(2, -1, fused.shape[1]).transpose(2, 0, 1)
    mlp = block(GatedMlp, gate_up=gate_up, down=ops[f"inputs/{name}_linear_out"].T)
    got = mlp(jnp.asarray(ops["inputs/xg"]))
    np.testing.assert_allclose(got, ops[f"expected/{name}"], atol=1e-5)


def test_the_gate_goes_through_the_silu_of_the_reference(ops):
    """Inputs (g, 1): channel 0 is the gate, channel 1 what is gated."""
    mlp = block(GatedMlp, gate_up=np.eye(2).reshape(2, 2, 1), down=np.array([[1.0, 0.0]]))
    g = ops["inputs/g"]
    got = mlp(jnp.stack([g, np.ones_like(g)], axis=-1))[:, 0]
    np.testing.assert_allclose(got, ops["expected/silu"], atol=1e-5)


def test_the_plain_block_has_the_exact_gelu_of_the_reference(ops):
    """The tanh approximation is up to 5e-4 away."""
    mlp = block(Mlp, up=np.ones((1, 1)), down=np.ones((1, 1)))
    got = mlp(jnp.asarray(ops["inputs/g"])[:, None])[:, 0]
    np.testing.assert_allclose(got, ops["expected/gelu"], atol=1e-5)
