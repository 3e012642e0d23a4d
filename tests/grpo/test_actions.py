"""Action spaces: exact marginals, their KL and gradient, and the literal sum's defects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.actions import SpeakSilence, TextTokens
from grpo.loss import action_logprobs, exact_kl

PAD, V = 3, 12


@pytest.fixture(scope="module")
def logits():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, V)), jnp.float32)


@pytest.fixture(scope="module")
def tokens():
    return jnp.asarray([[3, 0, 3, 7, 11], [1, 3, 3, 2, 4]], jnp.int32)


def test_speaking_is_the_probability_of_any_word(logits, tokens):
    """The end-of-padding token is not PAD: it speaks."""
    p = np.asarray(jax.nn.softmax(logits / 0.7), np.float64)
    speaks = np.asarray(tokens) != PAD
    expected = np.where(speaks, 1 - p[..., PAD], p[..., PAD])
    got = action_logprobs(logits, tokens, 0.7, SpeakSilence(PAD))
    np.testing.assert_allclose(got, np.log(expected), atol=1e-5)
    np.testing.assert_array_equal(SpeakSilence(PAD).of(tokens), speaks)


def test_the_gradient_leaves_the_choice_of_words_alone(logits, tokens):
    """Within the class, all logits move so that their relative probabilities stay."""

    def objective(z):
        return action_logprobs(z, tokens, 1.0, SpeakSilence(PAD))[0, 1]

    gradient = np.asarray(jax.grad(objective)(logits))[0, 1]
    words = np.delete(gradient, PAD)
    within = np.delete(np.asarray(jax.nn.softmax(logits))[0, 1], PAD)
    np.testing.assert_allclose(words / words.sum(), within / within.sum(), atol=1e-5)
    assert gradient[PAD] < 0 and words.sum() > 0


def test_kl_is_that_of_the_two_classes(logits):
    other = logits[::-1]
    p, q = (np.asarray(jax.nn.softmax(z), np.float64)[..., PAD] for z in (logits, other))
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    got = exact_kl(logits, other, SpeakSilence(PAD))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert (np.asarray(got) <= np.asarray(exact_kl(logits, other)) + 1e-6).all()


def test_the_literal_sum_is_what_the_paper_prints_and_no_marginal(logits, tokens):
    space = SpeakSilence(PAD, "sum")
    z = np.asarray(logits, np.float64)
    words = z.sum(-1) - z[..., PAD]
    expected = np.stack([z[..., PAD], words], -1)
    expected -= np.log(np.exp(expected).sum(-1, keepdims=True))
    np.testing.assert_allclose(space.log_probs(logits, 1.0), expected, atol=1e-5)
    # Adding a constant to all logits changes no probability of a token, but it changes this.
    np.testing.assert_allclose(
        SpeakSilence(PAD).log_probs(logits + 1, 1.0),
        SpeakSilence(PAD).log_probs(logits, 1.0),
        atol=1e-5,
    )
    assert np.abs(np.asarray(space.log_probs(logits + 1, 1.0)) - expected).max() > 1


def test_tokens_are_their_own_actions(logits, tokens):
    space = TextTokens()
    assert space.of(tokens) is tokens
    expected = jax.nn.log_softmax(logits / 0.5)
    np.testing.assert_allclose(space.log_probs(logits, 0.5), expected, atol=1e-6)
