import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers_jax import Precision, bind
from mimi_jax import SeanetConfig
from mimi_jax.seanet import ResidualUnit, SeanetDecoder, SeanetEncoder

CONFIG = SeanetConfig(dimension=6, n_filters=2, n_residual_layers=2, ratios=(3, 2))
HOP = 6


@pytest.fixture(scope="module", params=[SeanetEncoder, SeanetDecoder])
def end(request, random_module):
    """One end of the codec compiled, a signal for it, and the samples of its smallest chunk."""
    kind = request.param
    module, params = random_module(
        lambda: kind(CONFIG, precision=Precision.f32(), rngs=nnx.Rngs(0))
    )
    chunk, channels = (HOP, 1) if kind is SeanetEncoder else (1, CONFIG.dimension)
    x = np.random.default_rng(0).standard_normal((2, 4 * chunk, channels)).astype(np.float32)
    run = jax.jit(lambda x, past: bind(module, params)(x, past))
    return run, bind(module, params), x, chunk


def test_the_activation_is_that_of_the_reference(golden):
    _, ops, _ = golden("ops")
    got = jax.nn.elu(jnp.asarray(ops["inputs/g"]))
    np.testing.assert_allclose(got, ops["expected/elu"], atol=1e-6)


def test_chunks_give_the_whole_and_the_same_histories(end):
    run, module, x, chunk = end
    whole, last = run(x, module.init_histories(2))
    parts, past = [], module.init_histories(2)
    for start in range(0, x.shape[1], chunk):
        y, past = run(x[:, start : start + chunk], past)
        parts.append(y)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
    for got, expected in zip(past, last, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_past_is_silence_unless_given(end):
    run, module, x, _ = end
    whole, last = module(jnp.asarray(x))
    again, histories = run(x, module.init_histories(2))
    np.testing.assert_allclose(whole, again, atol=1e-5)
    assert [h.shape for h in histories] == [h.shape for h in last]
    assert not any(np.any(h) for h in module.init_histories(2))


def test_rates_change_by_the_product_of_the_ratios(end):
    run, module, x, chunk = end
    y, _ = run(x, module.init_histories(2))
    assert y.shape == ((2, 4, 6) if chunk == HOP else (2, 4 * HOP, 1))


def test_the_encoder_strides_in_reverse_and_dilations_grow(random_module):
    module, _ = random_module(
        lambda: SeanetEncoder(CONFIG, precision=Precision.f32(), rngs=nnx.Rngs(0))
    )
    assert [stage.resample.stride for stage in module.stages] == [2, 3]
    assert [unit.conv1.dilation for unit in module.stages[0].residuals] == [1, 2]
    mirror, _ = random_module(
        lambda: SeanetDecoder(CONFIG, precision=Precision.f32(), rngs=nnx.Rngs(0))
    )
    assert [stage.resample.stride for stage in mirror.stages] == [3, 2]


def test_a_residual_unit_adds_to_its_input(random_module):
    module, params = random_module(
        lambda: ResidualUnit(4, CONFIG, 1, precision=Precision.f32(), rngs=nnx.Rngs(0))
    )
    x = np.random.default_rng(1).standard_normal((1, 5, 4)).astype(np.float32)

    def elu(x):
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))

    def conv(x, kernel, bias):
        padded = np.pad(x, ((0, 0), (len(kernel) - 1, 0), (0, 0)))
        length = x.shape[1]
        return bias + sum(padded[:, k : k + length] @ w for k, w in enumerate(kernel))

    values = jax.tree.map(np.asarray, params)
    inner = elu(conv(elu(x), **values["conv1"]))
    expected = x + inner @ values["conv2"]["kernel"][0] + values["conv2"]["bias"]
    got, _ = bind(module, params)(jnp.asarray(x), None)
    np.testing.assert_allclose(got, expected, atol=1e-5)
