"""The objective: exact KL and its gradient, ratio, clip, mask, (sum, count)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.loss import LossSum, action_logprobs, exact_kl, policy_loss

B, T, V = 3, 5, 11
SETTINGS: dict[str, Any] = {"temperature": 0.7, "epsilon": 0.2, "beta": 0.01}


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(B, T, V)), jnp.float32)
    tokens = jnp.asarray(rng.integers(0, V, (B, T)), jnp.int32)
    return {
        "logits": logits,
        "reference": jnp.asarray(rng.normal(size=(B, T, V)), jnp.float32),
        "tokens": tokens,
        "old_logprob": action_logprobs(logits, tokens, 0.7),
        "advantage": jnp.asarray([1.0, -2.0, 0.5], jnp.float32),
        "mask": jnp.asarray([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 1, 1, 1]], bool),
    }


# One executable for all tests: op by op, each would be compiled alone.
compiled = jax.jit(policy_loss, static_argnames=tuple(SETTINGS))


def loss_sum(case: dict[str, Any], **settings: Any) -> LossSum:
    return compiled(**case, **(SETTINGS | settings))


def logits_gradient(case, **settings):
    def objective(logits):
        return loss_sum(case | {"logits": logits}, **settings).sum

    return jax.grad(objective)(case["logits"])


def mean(loss, name):
    total, count = loss.metrics[name]
    return float(total / count)


def test_action_logprobs_are_at_the_sampling_temperature(case):
    z = np.asarray(case["logits"], np.float64) / 0.7
    expected = z - np.log(np.exp(z).sum(-1, keepdims=True))
    expected = np.take_along_axis(expected, np.asarray(case["tokens"])[..., None], -1)[..., 0]
    np.testing.assert_allclose(case["old_logprob"], expected, atol=1e-6)


def test_kl_is_exact_over_the_vocabulary(case):
    p = np.exp(np.asarray(jax.nn.log_softmax(case["logits"]), np.float64))
    q = np.exp(np.asarray(jax.nn.log_softmax(case["reference"]), np.float64))
    expected = (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(exact_kl(case["logits"], case["reference"]), expected, atol=1e-6)
    np.testing.assert_array_equal(exact_kl(case["logits"], case["logits"]), np.zeros((B, T)))


def test_kl_gradient_against_formula_and_finite_differences(case):
    logits, reference = case["logits"], case["reference"]
    got = jax.grad(lambda z: exact_kl(z, reference).sum())(logits)
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(reference)
    kl = exact_kl(logits, reference)[..., None]
    np.testing.assert_allclose(got, jnp.exp(log_p) * (log_p - log_q - kl), atol=1e-6)

    def kl64(z):
        log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
        q = np.asarray(reference, np.float64)
        log_q = q - np.log(np.exp(q).sum(-1, keepdims=True))
        return (np.exp(log_p) * (log_p - log_q)).sum()

    z = np.asarray(logits, np.float64)
    for index in [(0, 0, 0), (1, 2, 5), (2, 4, 10)]:
        bump = np.zeros_like(z)
        bump[index] = 1e-5
        finite = (kl64(z + bump) - kl64(z - bump)) / 2e-5
        np.testing.assert_allclose(got[index], finite, atol=1e-6)


def test_loss_value_against_a_plain_loop(case):
    shifted = case | {"old_logprob": case["old_logprob"] - jnp.asarray([[0.1], [0.4], [-0.5]])}
    loss = loss_sum(shifted)
    kl = np.asarray(exact_kl(case["logits"], case["reference"]), np.float64)
    expected = 0.0
    for b, shift in enumerate([0.1, 0.4, -0.5]):
        ratio, gain = np.exp(shift), float(case["advantage"][b])
        surrogate = min(ratio * gain, np.clip(ratio, 0.8, 1.2) * gain)
        frames = np.flatnonzero(np.asarray(case["mask"][b]))
        expected -= np.mean([surrogate - 0.01 * kl[b, t] for t in frames])
    np.testing.assert_allclose(loss.sum, expected, rtol=1e-5)
    assert float(loss.count) == 3


def test_ratio_is_one_and_nothing_is_clipped_before_the_first_update(case):
    loss = loss_sum(case)
    assert mean(loss, "is_ratio/mean") == pytest.approx(1, abs=1e-6)
    for extreme in loss.extremes.values():
        assert float(extreme) == pytest.approx(1, abs=1e-6)
    assert mean(loss, "pg_clipfrac") == 0
    assert mean(loss, "ppo_kl") == pytest.approx(0, abs=1e-6)


def test_masked_frames_have_no_gradient_even_with_wild_values(case):
    wild = case["old_logprob"].at[:, 0].set(-1e6)  # exp of it would overflow
    tokens = case["tokens"].at[1, 3].set(-2)
    gradient = logits_gradient(
        case | {"old_logprob": wild, "tokens": tokens, "mask": case["mask"].at[0, 0].set(False)}
    )
    mask = case["mask"].at[0, 0].set(False)
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[~np.asarray(mask)] == 0).all()
    assert (np.abs(np.asarray(gradient)[np.asarray(mask)]).sum(-1) > 0).all()


@pytest.mark.parametrize(("advantage", "shift"), [(1.0, -0.5), (-1.0, 0.5)])
def test_clipped_side_keeps_only_the_kl_gradient(case, advantage, shift):
    # shift < 0: the policy has already moved towards the token by more than epsilon.
    clipped = case | {
        "old_logprob": case["old_logprob"] + shift,
        "advantage": jnp.full(B, advantage, jnp.float32),
    }
    assert mean(loss_sum(clipped), "pg_clipfrac") == 1
    assert not np.asarray(logits_gradient(clipped, beta=0.0)).any()
    still = case | {"advantage": jnp.zeros(B, jnp.float32)}
    np.testing.assert_allclose(logits_gradient(clipped), logits_gradient(still), atol=1e-8)
    assert np.asarray(logits_gradient(clipped)).any()


@pytest.mark.parametrize(("advantage", "shift"), [(1.0, 0.5), (-1.0, -0.5)])
def test_the_pessimistic_side_is_not_clipped(case, advantage, shift):
    moved = case | {
        "old_logprob": case["old_logprob"] + shift,
        "advantage": jnp.full(B, advantage, jnp.float32),
    }
    assert mean(loss_sum(moved), "pg_clipfrac") == 0
    assert np.asarray(logits_gradient(moved, beta=0.0)).any()


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_step_down_the_gradient_makes_good_tokens_more_probable(case, advantage):
    tried = case | {"advantage": jnp.full(B, advantage, jnp.float32)}
    moved = case["logits"] - 0.1 * logits_gradient(tried, beta=0.0)
    change = action_logprobs(moved, case["tokens"], 0.7) - case["old_logprob"]
    assert (advantage * np.asarray(change)[np.asarray(case["mask"])] > 0).all()


def test_an_empty_rollout_is_not_counted(case):
    loss = loss_sum(case | {"mask": case["mask"].at[1].set(False)})
    rest = {name: value[jnp.asarray([0, 2])] for name, value in case.items()}
    np.testing.assert_allclose(loss.sum, loss_sum(rest).sum, rtol=1e-6)
    assert float(loss.count) == 2


def test_bf16_logits_are_used_in_float32(case):
    half = case["logits"].astype(jnp.bfloat16)
    assert action_logprobs(half, case["tokens"], 0.7).dtype == jnp.float32
    np.testing.assert_array_equal(
        exact_kl(half, case["reference"]),
        exact_kl(half.astype(jnp.float32), case["reference"]),
    )
