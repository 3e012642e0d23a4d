"""The model as a policy: what gets gradient, where training starts, how weights are synced."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from grpo.actions import TextTokens
from grpo.config import LossConfig, OptimizerConfig
from grpo.layout import make_layout
from grpo.loss import action_logprobs
from grpo.mesh import make_mesh
from grpo.policy import (
    Constants,
    Minibatch,
    bf16_visible_change,
    make_logprobs,
    make_sync,
    text_loss,
    training_form,
)
from grpo.trainable import merge, partition
from grpo.update import init_train_state, make_optimizer, mean_gradient
from helium_jax import forward_text, stack_layers

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
def logprobs(small, base):
    layout = make_layout(base[0], make_mesh(1))
    program = jax.jit(make_logprobs(training_form(small.lm), layout, TEMPERATURE, TextTokens()))

    def run(weights, frozen, streams):
        actions, tokens = program(weights, frozen, streams)
        np.testing.assert_array_equal(actions, tokens)
        return actions

    return run


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


def loss_on(small, layout):
    return text_loss(training_form(small.lm), layout, LossConfig(), TEMPERATURE)


@pytest.fixture(scope="module")
def loss_function(small, base):
    return loss_on(small, make_layout(base[0], make_mesh(1)))


def test_log_probs_equal_those_of_the_listed_model(small, streams, old):
    logits = jax.jit(functools.partial(forward_text, small.lm))(small.params, streams)
    expected = action_logprobs(logits, streams[:, 0], TEMPERATURE)
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


@pytest.mark.parametrize("shape", [None, (4,), (2, 2)])
def test_gradient_on_four_devices_equals_one_device(shape, small, base, other, batch, gradient):
    mesh = make_mesh(4, mapping="pmap" if shape is None else "shard_map", shape=shape)
    layout = make_layout(base[0], mesh)
    specs = layout.specs
    function = loss_on(small, layout)
    mapped = mesh.map(
        lambda trainable, constants, part: mean_gradient(
            function, layout, trainable, constants, part
        ),
        in_axes=(specs, Constants(PartitionSpec(), specs), 0),
        out_axes=(specs, None),
    )
    parts = jax.tree.map(lambda x: np.asarray(x).reshape(4, -1, *x.shape[1:]), batch)
    constants = Constants(mesh.put(base[1]), mesh.put(other, specs))
    got, metrics = mapped(mesh.put(base[0], specs), constants, parts)
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


@pytest.mark.parametrize("shape", [None, (2, 2)])
def test_decoding_weights_are_the_model_again(shape, small, base):
    trainable, frozen = base
    mesh = make_mesh(4, mapping="pmap" if shape is None else "shard_map", shape=shape)
    layout = make_layout(trainable, mesh)
    sync = mesh.map(make_sync(layout), in_axes=(layout.specs,), out_axes=None)
    again = merge(sync(mesh.put(trainable, layout.specs)), frozen)
    assert jax.tree.structure(again) == jax.tree.structure(small.params)
    jax.tree.map(np.testing.assert_array_equal, again, small.params)


def test_bf16_sees_large_changes_only(base):
    rounded = jax.tree.map(
        lambda leaf: np.asarray(leaf).astype(jnp.bfloat16).astype(np.float32), base[0]
    )
    share = jax.jit(
        lambda factor: bf16_visible_change(jax.tree.map(lambda x: x * factor, rounded), rounded)
    )
    assert all(leaf.all() for leaf in jax.tree.leaves(rounded))
    assert [float(share(factor)) for factor in (1.0, 1.00001, 1.5)] == [0, 0, 1]
