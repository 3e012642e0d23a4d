import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers_jax import LayerNorm, LayerScale, Precision, RMSNorm, bind


@pytest.fixture(scope="module")
def ops(golden):
    return golden("ops").tensors


def normed(norm, x, precision, **params):
    module = nnx.eval_shape(lambda: norm(x.shape[-1], precision=precision, rngs=nnx.Rngs(0)))
    return bind(module, {name: jnp.asarray(value) for name, value in params.items()})(
        jnp.asarray(x)
    )


def test_rms_norm_in_f32_is_that_of_the_reference(ops):
    """Rows go down to 1e-5, where an epsilon of 1e-5 or outside the mean would show."""
    x, scale = ops["inputs/x"], ops["inputs/alpha"][0, 0]
    assert np.abs(x).max(-1).min() < 1e-4
    got = normed(RMSNorm, x, Precision.f32(), scale=scale)
    np.testing.assert_allclose(got, ops["expected/rms_norm_f32"], atol=1e-5)


def test_rms_norm_in_bf16_is_that_of_the_reference_bit_for_bit(ops):
    """The scale meets the f32 factor before any rounding; the other order differs in many bits."""
    x = ops["inputs/x"].astype(jnp.bfloat16)
    scale = ops["inputs/alpha"][0, 0].astype(jnp.bfloat16)
    got = np.asarray(normed(RMSNorm, x, Precision.bf16(), scale=scale))
    expected = ops["expected/rms_norm_f32_bf16"]
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got.view(np.uint16), expected.view(np.uint16))


def test_layer_norm_is_that_of_the_reference(ops):
    got = normed(
        LayerNorm,
        ops["inputs/x"],
        Precision.f32(),
        scale=ops["inputs/ln_w"],
        bias=ops["inputs/ln_b"],
    )
    np.testing.assert_allclose(got, ops["expected/layer_norm"], atol=1e-5)


def test_layer_scale_multiplies_each_channel_and_keeps_the_format():
    build = nnx.eval_shape(lambda: LayerScale(3, 0.01, precision=Precision.f32(), rngs=nnx.Rngs(0)))
    scale = bind(build, {"scale": jnp.array([1.0, 2.0, -3.0])})
    assert scale(jnp.ones((1, 2, 3))).tolist() == [[[1, 2, -3]] * 2]
    assert scale(jnp.ones((1, 3), jnp.bfloat16)).dtype == jnp.bfloat16


def test_layer_scale_starts_at_the_given_factor():
    layer = LayerScale(2, 0.25, precision=Precision.f32(), rngs=nnx.Rngs(0))
    assert layer.scale[...].tolist() == [0.25, 0.25]
