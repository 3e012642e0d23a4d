"""The per-device update: equal to one device on any number of them, with unequal counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.config import OptimizerConfig
from grpo.layout import make_layout
from grpo.loss import policy_loss
from grpo.mesh import make_mesh
from grpo.rounding import make_rounder
from grpo.update import init_train_state, make_optimizer, make_update, mean_gradient, state_specs

N, T, V, D = 16, 6, 24, 8  # rollouts, frames, vocabulary, width


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


# Each mapping on one to eight devices.
REPLICAS = [(1, None), (2, None), (4, None), (8, None)]
BLOCKS = [(1, (1,)), (2, (2,)), (4, (2, 2)), (8, (4, 2)), (8, (2, 2, 2))]


def mesh_for(devices, shape):
    return make_mesh(devices, mapping="pmap" if shape is None else "shard_map", shape=shape)


def loss_on(layout):
    """The toy loss of a device that holds blocks."""

    def loss(blocks, reference, batch):
        whole = layout.gather(blocks, layout.cuts), layout.gather(reference, layout.cuts)
        return toy_loss(*whole, batch)

    return loss


def map_gradient(mesh, layout):
    def program(trainable, constants, part):
        return mean_gradient(loss_on(layout), layout, trainable, constants, part)

    specs = layout.specs
    return mesh.map(program, in_axes=(specs, specs, 0), out_axes=(specs, None))


@pytest.fixture(scope="module")
def reference_gradient(params, batch):
    """Plain jax.grad of the mean over all counted rollouts, no mapping, no collective."""
    other = jax.tree.map(lambda leaf: 0.9 * leaf, params)

    whole = jax.tree.map(jnp.asarray, batch)

    def mean(trainable):
        loss = toy_loss(trainable, other, whole)
        return loss.sum / loss.count

    return other, *jax.jit(jax.value_and_grad(mean))(params)


@pytest.mark.parametrize(("devices", "shape"), REPLICAS + BLOCKS)
def test_loss_and_gradients_equal_one_device(devices, shape, params, batch, reference_gradient):
    other, loss, gradient = reference_gradient
    parts = split(batch, devices)
    counts = parts["mask"].any(axis=2).sum(axis=1)
    tokens = parts["mask"].sum(axis=(1, 2))
    if devices > 1:
        assert len(set(tokens.tolist())) > 1
    if devices == 8:
        assert len(set(counts.tolist())) > 1

    mesh = mesh_for(devices, shape)
    layout = make_layout(params, mesh)
    got, metrics = map_gradient(mesh, layout)(
        mesh.put(params, layout.specs), mesh.put(other, layout.specs), parts
    )
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, gradient)
    assert np.abs(np.asarray(got["head"])).max() > 1e-3


def test_metrics_are_global(params, batch, reference_gradient):
    other, _, _ = reference_gradient
    whole = jax.jit(toy_loss)(params, other, batch)
    mesh = mesh_for(8, None)
    _, got = map_gradient(mesh, make_layout(params, mesh))(params, other, split(batch, 8))
    for name in ("kl", "entropy", "pg_clipfrac", "is_ratio/mean"):
        total, count = whole.metrics[name]
        np.testing.assert_allclose(got[name], total / count, rtol=1e-5, err_msg=name)
    for name in ("is_ratio/max", "is_ratio/min"):
        np.testing.assert_allclose(got[name], whole.extremes[name], rtol=1e-5, err_msg=name)


def run_updates(devices, shape, params, batch, other, updates=4, **options):
    mesh = mesh_for(devices, shape)
    layout = make_layout(params, mesh)
    settings = OptimizerConfig(learning_rate=1e-2, **options)
    optimizer, _ = make_optimizer(settings, updates)
    states = state_specs(layout, params, optimizer)
    rounder = make_rounder(layout, jnp.float32, "nearest", 0)
    update = mesh.map(
        make_update(loss_on(layout), optimizer, layout, rounder, settings.clip_norm),
        in_axes=(states, layout.specs, 0),
        out_axes=(states, None),
        donate=(0,),
    )
    state = mesh.jit(lambda tree: init_train_state(tree, optimizer), states)(
        mesh.put(params, layout.specs)
    )
    metrics = {}
    for _ in range(updates):
        before = state
        state, metrics = update(state, mesh.put(other, layout.specs), split(batch, devices))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.trainable))
    return state, metrics


@pytest.mark.parametrize(("devices", "shape"), [(8, None), (8, (4, 2)), (8, (2, 2, 2))])
def test_updates_follow_one_device(devices, shape, params, batch, reference_gradient):
    other, _, _ = reference_gradient
    options = {"clip_norm": 1e-2}  # active: the norm is that of the whole gradient
    one, _ = run_updates(1, None, params, batch, other, **options)
    many, metrics = run_updates(devices, shape, params, batch, other, **options)
    assert int(many.step) == 4 and float(metrics["grad_norm"]) > 1e-2
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), many.trainable, one.trainable
    )
    moved = np.abs(np.asarray(one.trainable["head"]) - np.asarray(params["head"]))
    assert moved.max() > 1e-3
    if shape is not None:  # master and moments lie in blocks
        head = {"head": many.trainable["head"], "mu": many.opt_state[0].mu["head"]}
        for leaf in head.values():
            assert leaf.addressable_shards[0].data.size == leaf.size // devices


def test_an_update_without_a_finite_gradient_changes_nothing(params, batch, reference_gradient):
    other, _, _ = reference_gradient
    broken = {**batch, "old_logprob": np.full((N, T), np.nan, np.float32)}
    state, metrics = run_updates(4, (2, 2), params, broken, other, updates=2)
    assert float(metrics["update/skipped"]) == 1 and int(state.step) == 2
    jax.tree.map(np.testing.assert_array_equal, state.trainable, params)
    for leaf in jax.tree.leaves(state.opt_state):
        assert not np.asarray(leaf).any()
    _, metrics = run_updates(4, (2, 2), params, batch, other, updates=1)
    assert float(metrics["update/skipped"]) == 0


def test_moments_in_bf16_take_half_the_memory_and_train_alike(params, batch, reference_gradient):
    other, _, _ = reference_gradient
    full, _ = run_updates(1, None, params, batch, other)
    half, _ = run_updates(1, None, params, batch, other, moments="bfloat16")
    moments = jax.tree.leaves((half.opt_state[0].mu, half.opt_state[0].nu))
    assert {leaf.dtype for leaf in moments} == {jnp.dtype(jnp.bfloat16)}
    moved = np.asarray(full.trainable["head"]) - np.asarray(params["head"])
    also = np.asarray(half.trainable["head"]) - np.asarray(params["head"])
    np.testing.assert_allclose(also, moved, atol=0.02 * np.abs(moved).max())


def test_the_base_model_survives_donation(params, batch, reference_gradient):
    other, _, _ = reference_gradient
    run_updates(2, None, params, batch, other, updates=1)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((params, other)))


def test_master_weights_are_float32(params):
    optimizer, _ = make_optimizer(OptimizerConfig(), 1)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    state = init_train_state(half, optimizer)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.trainable)} == {jnp.dtype("float32")}


def test_norms_do_not_decay():
    optimizer, _ = make_optimizer(OptimizerConfig(learning_rate=1.0, weight_decay=0.1), 10)
    params = {"head": jnp.ones(2), "out_norm": {"scale": jnp.ones(2)}}
    nothing = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(nothing, optimizer.init(params), params)
    expected = {"head": np.full(2, -0.1), "out_norm": {"scale": np.zeros(2)}}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), updates, expected)


def test_cosine_runs_from_the_rate_to_zero():
    _, schedule = make_optimizer(OptimizerConfig(learning_rate=2e-7), 1600)
    rates = np.array([np.asarray(schedule(step)) for step in (0, 800, 1600)])
    np.testing.assert_allclose(rates, [2e-7, 1e-7, 0])


def test_a_warm_up_rises_before_the_cosine_and_is_shorter_than_the_run():
    config = OptimizerConfig(learning_rate=1.0, warmup_updates=4)
    _, schedule = make_optimizer(config, 12)
    rates = np.array([np.asarray(schedule(step)) for step in (0, 2, 4, 8, 12)])
    np.testing.assert_allclose(rates, [0, 0.5, 1, 0.5, 0], atol=1e-6)
    with pytest.raises(ValueError, match="warmup_updates is 4, expected fewer than the 4 updates"):
        make_optimizer(config, 4)
