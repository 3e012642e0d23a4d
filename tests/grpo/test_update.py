"""The per-device update: equal to one device on any number of them, with unequal counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.config import OptimizerConfig
from grpo.loss import policy_loss
from grpo.mesh import make_mesh
from grpo.update import init_train_state, make_optimizer, make_update, mean_gradient

N, T, V, D = 16, 6, 9, 5  # rollouts, frames, vocabulary, width


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(1)
    return {
        "embedding": jnp.asarray(rng.normal(size=(V, D)), jnp.float32),
        "out_norm": {"scale": jnp.ones(D)},
        "head": jnp.asarray(rng.normal(size=(D, V)), jnp.float32),
    }


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(2)
    # Rollout i has i % 7 frames: counts differ between devices, and some rollouts have none.
    frames = np.arange(N) % 7
    return {
        "tokens": rng.integers(0, V, (N, T)).astype(np.int32),
        "advantage": rng.normal(size=N).astype(np.float32),
        "old_logprob": np.full((N, T), -np.log(V), np.float32),
        "mask": np.arange(T) < frames[:, None],
    }


def toy_logits(params, tokens):
    hidden = params["embedding"][jnp.roll(tokens, 1, axis=1)] * params["out_norm"]["scale"]
    return jnp.tanh(hidden) @ params["head"]


def toy_loss(trainable, reference, batch):
    return policy_loss(
        toy_logits(trainable, batch["tokens"]),
        toy_logits(reference, batch["tokens"]),
        **batch,
        temperature=0.7,
        epsilon=0.2,
        beta=0.5,
    )


def split(batch, devices):
    return {name: value.reshape(devices, -1, *value.shape[1:]) for name, value in batch.items()}


@pytest.fixture(scope="module")
def reference_gradient(params, batch):
    """Plain jax.grad of the mean over all counted rollouts, no mapping, no collective."""
    other = jax.tree.map(lambda leaf: 0.9 * leaf, params)

    whole = jax.tree.map(jnp.asarray, batch)

    def mean(trainable):
        loss = toy_loss(trainable, other, whole)
        return loss.sum / loss.count

    return other, *jax.jit(jax.value_and_grad(mean))(params)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_loss_and_gradients_equal_one_device(devices, params, batch, reference_gradient):
    other, loss, gradient = reference_gradient
    parts = split(batch, devices)
    counts = parts["mask"].any(axis=2).sum(axis=1)
    tokens = parts["mask"].sum(axis=(1, 2))
    if devices > 1:
        assert len(set(tokens.tolist())) > 1
    if devices == 8:
        assert len(set(counts.tolist())) > 1

    mesh = make_mesh(devices)
    program = mesh.map(
        lambda trainable, constants, part: mean_gradient(toy_loss, trainable, constants, part),
        in_axes=(None, None, 0),
        out_axes=None,
    )
    got, metrics = program(mesh.replicate(params), mesh.replicate(other), parts)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, gradient)
    assert np.abs(np.asarray(got["head"])).max() > 1e-3


def test_metrics_are_global(params, batch, reference_gradient):
    other, _, _ = reference_gradient
    whole = jax.jit(toy_loss)(params, other, batch)
    program = make_mesh(8).map(
        lambda trainable, constants, part: mean_gradient(toy_loss, trainable, constants, part)[1],
        in_axes=(None, None, 0),
        out_axes=None,
    )
    got = program(params, other, split(batch, 8))
    for name in ("kl", "entropy", "pg_clipfrac", "is_ratio/mean"):
        total, count = whole.metrics[name]
        np.testing.assert_allclose(got[name], total / count, rtol=1e-5, err_msg=name)
    for name in ("is_ratio/max", "is_ratio/min"):
        np.testing.assert_allclose(got[name], whole.extremes[name], rtol=1e-5, err_msg=name)


def run_updates(devices, params, batch, other, updates=4):
    mesh = make_mesh(devices)
    optimizer, _ = make_optimizer(OptimizerConfig(learning_rate=1e-2), updates)
    update = mesh.map(
        make_update(toy_loss, optimizer), in_axes=(None, None, 0), out_axes=None, donate=(0,)
    )
    state = mesh.jit(lambda tree: init_train_state(tree, optimizer))(mesh.replicate(params))
    metrics = {}
    for _ in range(updates):
        state, metrics = update(state, mesh.replicate(other), split(batch, devices))
    return state, metrics


def test_updates_on_eight_devices_follow_one_device(params, batch, reference_gradient):
    other, _, _ = reference_gradient
    one, _ = run_updates(1, params, batch, other)
    eight, metrics = run_updates(8, params, batch, other)
    assert int(eight.step) == 4 and float(metrics["grad_norm"]) > 0
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), eight.trainable, one.trainable
    )
    moved = np.abs(np.asarray(one.trainable["head"]) - np.asarray(params["head"]))
    assert moved.max() > 1e-3


def test_the_base_model_survives_donation(params, batch, reference_gradient):
    other, _, _ = reference_gradient
    run_updates(2, params, batch, other, updates=1)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((params, other)))


def test_master_weights_are_float32(params):
    optimizer, _ = make_optimizer(OptimizerConfig(), 1)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    state = init_train_state(half, optimizer)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.trainable)} == {jnp.dtype("float32")}


def test_gradient_is_clipped_and_norms_do_not_decay():
    config = OptimizerConfig(learning_rate=1.0, clip_norm=1e-30, weight_decay=0.1)
    optimizer, _ = make_optimizer(config, 10)
    params = {"head": jnp.ones(2), "out_norm": {"scale": jnp.ones(2)}}
    state = optimizer.init(params)
    gradient = jax.tree.map(lambda leaf: 1e3 * leaf, params)
    updates, _ = optimizer.update(gradient, state, params)
    # What is left of a gradient clipped to nothing is the decay alone.
    expected = {"head": np.full(2, -0.1), "out_norm": {"scale": np.zeros(2)}}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), updates, expected)


def test_cosine_runs_from_the_rate_to_zero():
    _, schedule = make_optimizer(OptimizerConfig(learning_rate=2e-7), 1600)
    rates = np.array([np.asarray(schedule(step)) for step in (0, 800, 1600)])
    np.testing.assert_allclose(rates, [2e-7, 1e-7, 0])
