import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers_jax import CausalConv1d, CausalConvTranspose1d, Precision, bind

# kernel size, stride, dilation
SHAPES = [(7, 1, 1), (3, 1, 2), (1, 1, 1), (8, 4, 1), (4, 2, 1), (5, 2, 1)]


@pytest.fixture(scope="module")
def conv(random_module):
    @functools.cache
    def make(size, stride=1, dilation=1, bias=True):
        module, params = random_module(
            lambda: CausalConv1d(
                3,
                2,
                size,
                stride=stride,
                dilation=dilation,
                bias=bias,
                precision=Precision.f32(),
                rngs=nnx.Rngs(0),
            )
        )
        return jax.jit(bind(module, params).__call__), params, bind(module, params)

    return make


@pytest.fixture(scope="module")
def transposed(random_module):
    @functools.cache
    def make(stride, depthwise=False, bias=True):
        channels = (3, 3) if depthwise else (3, 2)
        module, params = random_module(
            lambda: CausalConvTranspose1d(
                *channels,
                stride=stride,
                depthwise=depthwise,
                bias=bias,
                precision=Precision.f32(),
                rngs=nnx.Rngs(0),
            )
        )
        return jax.jit(bind(module, params).__call__), params, bind(module, params)

    return make


def signal(length, seed=0):
    return np.random.default_rng(seed).standard_normal((2, length, 3)).astype(np.float32)


def chunked(layer, x, sizes):
    """The outputs of successive calls joined, and what the last one remembers."""
    outputs, history, start = [], None, 0
    for size in sizes:
        y, history = layer(x[:, start : start + size], history)
        outputs.append(y)
        start += size
    assert start == x.shape[1]
    return np.concatenate(outputs, axis=1), np.asarray(history)


@pytest.mark.parametrize("size, stride, dilation", SHAPES)
def test_a_convolution_is_a_sum_over_a_padded_past(conv, size, stride, dilation):
    layer, params, module = conv(size, stride, dilation)
    x = signal(24)
    padding = (size - 1) * dilation + 1 - stride
    assert module.history_length == padding
    padded = np.pad(x, ((0, 0), (padding, 0), (0, 0)))
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    taps = [padded[:, np.arange(0, 24, stride) + k * dilation] @ kernel[k] for k in range(size)]
    np.testing.assert_allclose(layer(x)[0], sum(taps) + bias, atol=1e-5)


@pytest.mark.parametrize("size, stride, dilation", SHAPES)
def test_calls_one_after_the_other_give_the_whole(conv, size, stride, dilation):
    layer, _, _ = conv(size, stride, dilation)
    x = signal(24)
    whole, last = layer(x)
    parts, history = chunked(layer, x, [4, 12, 4, 4])
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    np.testing.assert_array_equal(history, last)


@pytest.mark.parametrize("size, stride, dilation", SHAPES)
def test_the_future_has_no_part_in_it(conv, size, stride, dilation):
    layer, _, _ = conv(size, stride, dilation)
    x = signal(24)
    other = np.concatenate([x[:, :12], signal(12, seed=1)], axis=1)
    first = 12 // stride
    np.testing.assert_array_equal(layer(x)[0][:, :first], layer(other)[0][:, :first])
    assert not np.allclose(layer(x)[0][:, first:], layer(other)[0][:, first:])


def test_lengths_off_the_stride_are_refused(conv):
    _, _, module = conv(8, 4)
    with pytest.raises(ValueError, match=r"got 6 samples, expected a multiple of its stride 4"):
        module(jnp.zeros((1, 6, 3)))


def test_a_convolution_may_have_no_bias(conv):
    layer, params, _ = conv(4, 2, 1, False)
    assert set(params) == {"kernel"}
    assert not np.any(layer(np.zeros((1, 8, 3), np.float32))[0])


@pytest.mark.parametrize("stride, depthwise", [(4, False), (2, True)])
def test_a_transposed_convolution_spreads_each_input(transposed, stride, depthwise):
    """And is cut to its causal part: `stride` samples an input."""
    layer, params, _ = transposed(stride, depthwise)
    x, kernel = signal(6), np.asarray(params["kernel"])
    full = np.zeros((2, 7 * stride, params["bias"].shape[0]), np.float32)
    for t in range(6):
        spread = x[:, t, None] * kernel if depthwise else np.einsum("bc,cko->bko", x[:, t], kernel)
        full[:, t * stride : (t + 2) * stride] += spread
    expected = full[:, : 6 * stride] + np.asarray(params["bias"])
    np.testing.assert_allclose(layer(x)[0], expected, atol=1e-5)


@pytest.mark.parametrize("stride, depthwise", [(4, False), (2, True)])
def test_transposed_calls_one_after_the_other_give_the_whole(transposed, stride, depthwise):
    layer, _, _ = transposed(stride, depthwise)
    x = signal(6)
    whole, last = layer(x)
    parts, overhang = chunked(layer, x, [1, 3, 1, 1])
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    np.testing.assert_allclose(overhang, last, atol=1e-6)


@pytest.mark.parametrize("stride, depthwise", [(4, False), (2, True)])
def test_silence_gives_the_bias_once_everywhere(transposed, stride, depthwise):
    """An overhang that kept the bias would add it again from the second call on."""
    layer, params, _ = transposed(stride, depthwise)
    parts, _ = chunked(layer, np.zeros((2, 3, 3), np.float32), [1, 1, 1])
    np.testing.assert_array_equal(parts, np.broadcast_to(params["bias"], parts.shape))


def test_a_transposed_convolution_may_have_no_bias(transposed):
    _, params, module = transposed(2, True, False)
    assert set(params) == {"kernel"}
    assert not np.any(module(jnp.zeros((1, 2, 3)))[0])
