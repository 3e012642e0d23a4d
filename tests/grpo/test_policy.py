"""The model as a policy: what gets gradient, where training starts, how weights are synced."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.config import LossConfig, OptimizerConfig
from grpo.loss import token_logprobs
from grpo.mesh import make_mesh
from grpo.policy import (
    Constants,
    Minibatch,
    bf16_visible_change,
    decoding_weights,
    make_logprobs,
    text_loss,
    training_form,
)
from grpo.trainable import merge, partition
from grpo.update import init_train_state, make_optimizer, mean_gradient
from helium_jax import forward_text, stack_layers
from layers_jax import Precision

N, T, TEMPERATURE = 4, 10, 0.7


@pytest.fixture(scope="module")
def base(small):
    """(trainable with stacked layers, frozen)."""
    return partition(stack_layers(small.params))


@pytest.fixture(scope="module")
def streams(small):
    config, rng = small.lm.config, np.random.default_rng(4)
    text = rng.integers(0, config.text_card, (N, 1, T))
    codes = rng.integers(0, config.card, (N, config.n_q, T))
    return jnp.asarray(np.concatenate([text, codes], axis=1), jnp.int32)


@pytest.fixture(scope="module")
def logprobs(small):
    return jax.jit(make_logprobs(training_form(small.lm), TEMPERATURE))


@pytest.fixture(scope="module")
def old(base, streams, logprobs):
    return logprobs(*base, streams)


@pytest.fixture(scope="module")
def batch(streams, old):
    frames = np.array([T, 3, 0, 6])  # rollout 2 has no frame of the segment
    return Minibatch(
        streams=streams,
        old_logprob=old,
        advantage=jnp.asarray([1.0, -1.0, 2.0, 0.5]),
        mask=jnp.asarray(np.arange(T) < frames[:, None]),
    )


@pytest.fixture(scope="module")
def loss_function(small):
    return text_loss(training_form(small.lm), LossConfig(), TEMPERATURE)


def test_log_probs_equal_those_of_the_listed_model(small, streams, old):
    logits = jax.jit(functools.partial(forward_text, small.lm))(small.params, streams)
    expected = token_logprobs(logits, streams[:, 0], TEMPERATURE)
    np.testing.assert_allclose(old, expected, atol=1e-5)


def test_frames_after_the_end_do_not_matter(base, streams, logprobs, old):
    cut = logprobs(*base, streams.at[:, :, 6:].set(-1))
    np.testing.assert_allclose(cut[:, :6], old[:, :6], atol=1e-6)


def test_training_starts_at_ratio_one_and_kl_zero(base, batch, loss_function):
    trainable, frozen = base
    loss = jax.jit(loss_function)(trainable, Constants(frozen, trainable), batch)
    for name in ("is_ratio/max", "is_ratio/min"):
        np.testing.assert_allclose(loss.extremes[name], 1, atol=2e-6)
    kl, frames = loss.metrics["kl"]
    np.testing.assert_allclose(kl / frames, 0, atol=1e-6)
    assert float(loss.count) == 3  # one of four rollouts is empty


@pytest.fixture(scope="module")
def other(base):
    """A base model that the policy has moved away from."""
    return jax.tree.map(lambda leaf: 0.9 * leaf, base[0])


@pytest.fixture(scope="module")
def gradient(base, other, batch, loss_function):
    """Plain gradient of the summed loss with respect to all parameters, on one device."""

    def of_everything(params):
        mine, rest = partition(params)
        return loss_function(mine, Constants(rest, other), batch).sum

    return jax.jit(jax.grad(of_everything))(merge(*base))


def test_gradient_reaches_all_trainable_parts_and_no_other(gradient):
    reached, rest = partition(gradient)
    for path, leaf in jax.tree_util.tree_leaves_with_path(reached):
        assert np.asarray(leaf).any(), jax.tree_util.keystr(path)
    assert "depth" in rest
    for path, leaf in jax.tree_util.tree_leaves_with_path(rest):
        assert not np.asarray(leaf).any(), jax.tree_util.keystr(path)


def test_gradient_on_four_devices_equals_one_device(base, other, batch, loss_function, gradient):
    mesh = make_mesh(4)
    mapped = mesh.map(
        lambda trainable, constants, part: mean_gradient(loss_function, trainable, constants, part),
        in_axes=(None, None, 0),
        out_axes=None,
    )
    parts = jax.tree.map(lambda x: np.asarray(x).reshape(4, -1, *x.shape[1:]), batch)
    got, metrics = mapped(base[0], Constants(base[1], other), parts)
    expected = dict(jax.tree_util.tree_leaves_with_path(partition(gradient)[0]))
    for path, leaf in jax.tree_util.tree_leaves_with_path(got):
        # Three of the four rollouts have frames: the mean is over those.
        np.testing.assert_allclose(
            leaf, expected[path] / 3, atol=1e-6, err_msg=jax.tree_util.keystr(path)
        )
    assert float(metrics["kl"]) > 0


def test_optimizer_state_has_no_frozen_part(small, base):
    trainable, _ = base
    state = init_train_state(trainable, make_optimizer(OptimizerConfig(), 10)[0])
    size = sum(leaf.size for leaf in jax.tree.leaves(trainable))
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim > 0]
    assert sum(leaf.size for leaf in moments) == 2 * size
    assert not any("depth" in str(path) for path, _ in jax.tree_util.tree_leaves_with_path(state))


def test_decoding_weights_are_the_model_again(small, base):
    trainable, frozen = base
    again = merge(decoding_weights(trainable, Precision.f32()), frozen)
    assert jax.tree.structure(again) == jax.tree.structure(small.params)
    jax.tree.map(np.testing.assert_array_equal, again, small.params)
    half = decoding_weights(trainable, Precision.bf16())
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}


def test_bf16_sees_large_changes_only(base):
    rounded = jax.tree.map(
        lambda leaf: np.asarray(leaf).astype(jnp.bfloat16).astype(np.float32), base[0]
    )
    share = jax.jit(
        lambda factor: bf16_visible_change(jax.tree.map(lambda x: x * factor, rounded), rounded)
    )
    assert all(leaf.all() for leaf in jax.tree.leaves(rounded))
    assert [float(share(factor)) for factor in (1.0, 1.00001, 1.5)] == [0, 0, 1]
