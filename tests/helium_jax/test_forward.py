from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from helium_jax import Moshi, forward, forward_text, init_state, stack_layers, unstack_layers
from layers_jax import LoraConfig, Precision, fuse, merge_adapters, split_adapters
from layers_jax.functional import abstract


@pytest.fixture(scope="module")
def run(kyutai):
    return kyutai[0].compiled(forward)


@pytest.fixture(scope="module")
def small_codes(small):
    """Three sessions of 19 frames with unknown places in every kind of stream."""
    rng = np.random.default_rng(0)
    codes = np.concatenate(
        [rng.integers(0, 13, (3, 1, 19)), rng.integers(0, 11, (3, 4, 19))], axis=1
    ).astype(np.int32)
    codes[0, 0, 3] = codes[1, 1, 5:8] = codes[2, 2, 0] = codes[1, 3] = -1
    return codes


@pytest.mark.parametrize("name", ["forward", "forward_masked"])
def test_logits_and_masks_are_those_of_the_reference(kyutai, run, name):
    """Everywhere, also where a target is unknown; what delays cut off is zero."""
    tensors = kyutai[1]
    logits = run(tensors[f"inputs/{name}/codes"])
    expected = {k: tensors[f"expected/{name}/{k}_logits"] for k in ("text", "audio")}
    masks = {k: tensors[f"expected/{name}/{k}_mask"] for k in ("text", "audio")}
    np.testing.assert_array_equal(logits.text_mask, masks["text"][:, 0])
    np.testing.assert_array_equal(logits.audio_mask, masks["audio"])
    np.testing.assert_allclose(logits.text, expected["text"][:, 0], atol=1e-4)
    np.testing.assert_allclose(logits.audio, expected["audio"], atol=2e-3)
    assert masks["text"].all() == (name == "forward") and not masks["audio"].all()


def test_bf16_stays_as_close_to_the_reference_as_rounding_lets_it(recorded):
    model, tensors = recorded("lm_kyutai", Precision.bf16())
    expected = tensors["expected/forward_bf16/text_logits"][:, 0]
    logits = model.compiled(forward_text)(tensors["inputs/forward/codes"])
    assert logits.dtype == jnp.float32
    error, scale = np.asarray(logits, np.float64) - expected, expected.std()
    assert np.sqrt(np.mean(error**2)) / scale < 0.02
    assert np.abs(error).max() / scale < 0.15
    assert np.any(error)


def test_adapters_act_in_every_matrix(small, small_codes, random_module):
    """Beside their kernels they give what they give fused, and nothing while they are zero."""
    config = replace(small.config, lora=LoraConfig(rank=2, scaling=0.7))
    lm, params = random_module(lambda: Moshi(config, rngs=nnx.Rngs(0)))
    adapters, base = split_adapters(params)
    fused = small.compiled(lambda lm, _, params, codes: forward(lm, params, codes))
    run = jax.jit(lambda params: forward(lm, params, jnp.asarray(small_codes)))
    off = run(merge_adapters(jax.tree.map(jnp.zeros_like, adapters), base))
    both = run(params), fused(fuse(params, 0.7), small_codes)
    for name in ("text", "audio"):
        beside, inside = (getattr(logits, name) for logits in both)
        np.testing.assert_allclose(beside, inside, atol=1e-4)
        plain = getattr(off, name)
        np.testing.assert_allclose(plain, getattr(fused(base, small_codes), name), atol=1e-5)
        assert np.abs(beside - plain).max() > 0.1


def test_the_temporal_side_alone_gives_the_same_text_logits(small, small_codes):
    both = small.compiled(
        lambda lm, params, codes: (forward(lm, params, codes).text, forward_text(lm, params, codes))
    )
    full, alone = both(small_codes)
    np.testing.assert_array_equal(full, alone)


def test_stacked_layers_give_the_same_logits(small, small_codes):
    stacked = abstract(lambda: Moshi(small.config, stacked=True, rngs=nnx.Rngs(0)))
    params = stack_layers(small.params)
    assert params["temporal"]["layers"]["norm1"]["scale"].shape == (2, 16)
    got = jax.jit(lambda params, codes: forward_text(stacked, params, codes))(params, small_codes)
    expected = small.compiled(forward_text)(small_codes)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, unstack_layers(params), small.params)


def test_unknown_places_leave_every_gradient_finite(small, small_codes):
    def loss(params, codes):
        logits = forward(small.lm, params, codes)
        text = jax.nn.log_softmax(logits.text)[..., 1]
        audio = jax.nn.log_softmax(logits.audio)[..., 1]
        kept = jnp.where(logits.text_mask, text, 0).sum()
        return kept + jnp.where(logits.audio_mask, audio, 0).sum()

    grads = jax.jit(jax.grad(loss))(small.params, small_codes)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert all(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(grads))


def test_drawn_tokens_have_the_log_probs_that_teacher_forcing_gives_them(
    small, small_sampled, small_sampling, small_users
):
    """The timing law: frame t is what calls t and t + 1 drew, and what the user said at t + 1.

    Three contexts long, in every row, for text and both codebooks.
    """
    _, out = small_sampled(init_state(small.lm, 3, seed=2), {"user": small_users})
    frames = out.tokens[1:].transpose(1, 2, 0)
    codes = np.concatenate([frames, small_users[1:].transpose(1, 2, 0)], axis=1)
    assert codes.shape == (3, 5, 19) and codes.shape[2] > 3 * small.config.context
    logits = small.compiled(forward)(codes)

    def log_probs(logits, sampler, tokens):
        """Of the given tokens, by hand: softmax over the most probable ones at the temperature."""
        logits = np.asarray(logits, np.float64)
        kept = np.sort(logits, axis=-1)[..., -(sampler.top_k or logits.shape[-1])]
        logits = np.where(logits >= kept[..., None], logits / sampler.temperature, -np.inf)
        chosen = np.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
        return chosen - np.log(np.exp(logits).sum(axis=-1))

    text = log_probs(logits.text, small_sampling.text, codes[:, 0])
    np.testing.assert_allclose(out.log_probs[:-1, :, 0].T, text, atol=1e-5)
    for k, delay in enumerate(small.config.delays[1:3]):
        audio = log_probs(logits.audio[:, k], small_sampling.audio, codes[:, 1 + k])
        length = 19 - delay  # the last frames' logits are cut off
        got = out.log_probs[delay : delay + length, :, 1 + k].T
        np.testing.assert_allclose(got, audio[:, :length], atol=1e-5)
    assert text.std() > 0.1
