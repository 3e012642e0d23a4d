"""Codebooks that follow the latents, and gradients that pass through them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers_jax import Precision, bind
from mimi_jax import QuantizerConfig
from mimi_jax.quantizer import SplitResidualVQ
from recipes.nano.codebooks import follow, quantize, start_codebooks


@pytest.fixture
def quantizer(random_module):
    config = QuantizerConfig(dimension=4, n_q=3, bins=8)
    return random_module(
        lambda: SplitResidualVQ(6, config, precision=Precision.f32(), rngs=nnx.Rngs(0))
    )


def error(module, params, latent):
    run = jax.jit(lambda p: quantize(bind(module, p), latent, jnp.ones(4, bool), jnp.full(4, 2)))
    out = run(params)
    return float(out.commitment), out


def test_centres_of_the_latents_are_nearer_than_random_ones_and_following_helps(quantizer):
    module, params = quantizer
    latent = jax.random.normal(jax.random.key(1), (4, 32, 6))
    start, _ = error(module, params, latent)
    params = start_codebooks(params, np.asarray(latent).reshape(-1, 6), np.random.default_rng(0))
    centred, out = error(module, params, latent)
    assert centred < 0.5 * start
    moved = latent + 0.5
    before, out = error(module, params, moved)
    move = jax.jit(follow)
    for step in range(60):
        params = move(params, out.chains, jax.random.key(step))
    after, _ = error(module, params, moved)
    assert after < 0.8 * before
    book = params["semantic"]["codebooks"][0]
    np.testing.assert_allclose(
        book["embedding"], book["embedding_sum"] / book["cluster_usage"][:, None], rtol=1e-5
    )


def test_gradients_pass_through_and_rows_that_are_off_are_not_quantized(quantizer):
    module, params = quantizer
    latent = jax.random.normal(jax.random.key(1), (2, 3, 6))
    on, levels = jnp.array([True, False]), jnp.array([0, 2])

    @jax.jit
    def output(x):
        return quantize(bind(module, params), x, on, levels).latent

    halves = [params[name] for name in ("semantic", "acoustic")]
    linear = sum(h["input_projection"]["kernel"] @ h["output_projection"]["kernel"]
                 for h in halves)  # fmt: skip
    np.testing.assert_allclose(output(latent)[1], latent[1] @ linear, rtol=1e-4, atol=1e-5)
    assert not np.allclose(output(latent)[0], latent[0] @ linear, atol=1e-2)
    gradient = jax.jit(jax.grad(lambda x: output(x)[0].sum()))(latent)[0]
    np.testing.assert_allclose(
        gradient, np.broadcast_to(linear.sum(axis=1), gradient.shape), rtol=1e-4, atol=1e-5
    )


def test_dropping_acoustic_levels_leaves_the_semantic_code(quantizer):
    module, params = quantizer
    latent = jax.random.normal(jax.random.key(2), (2, 3, 6))
    run = jax.jit(lambda levels: quantize(bind(module, params), latent, jnp.ones(2, bool), levels))
    none, both = run(jnp.array([0, 0])), run(jnp.array([2, 2]))
    np.testing.assert_array_equal(none.semantic, both.semantic)
    vectors = np.asarray(params["semantic"]["codebooks"][0]["embedding"])
    distances = np.abs(np.asarray(none.semantic)[..., None, :] - vectors).max(axis=-1)
    assert distances.min(axis=-1).max() < 1e-5
    expected = none.semantic @ params["semantic"]["output_projection"]["kernel"]
    np.testing.assert_allclose(none.latent, expected, rtol=1e-4, atol=1e-5)
