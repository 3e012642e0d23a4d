"""LoRA: starts at the base, trains its targets alone, is its own reference, on every mapping."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.adapters import add_adapters, fused, is_trained, with_adapters
from grpo.config import GRPOConfig, LoraTraining, LossConfig
from grpo.mesh import make_mesh
from grpo.policy import Constants, Minibatch, make_sync, text_loss, training_form
from grpo.programs import make_parts, wanted_of
from grpo.trainable import merge, partition
from grpo.update import mean_gradient
from helium_jax import forward_text, stack_layers
from layers_jax import split_adapters
from layers_jax.lora import LEAVES

N, T, LORA = 4, 10, LoraTraining(rank=8, scaling=0.5)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    return GRPOConfig(checkpoint=folder, segments=folder, run_dir=folder, lora=LORA)


@pytest.fixture(scope="module")
def lm(small):
    return with_adapters(small.lm, LORA)


@pytest.fixture(scope="module")
def adapted(lm, small):
    """Adapters away from their start, so that both factors have a gradient."""
    params = add_adapters(lm, small.params, seed=3)

    def leaf(path, value):
        return value + 0.1 if getattr(path[-1], "key", None) == "lora_b" else value

    return jax.tree_util.tree_map_with_path(leaf, params)


@pytest.fixture(scope="module")
def batch(small):
    config, rng = small.lm.config, np.random.default_rng(4)
    text = rng.integers(0, config.text_card, (N, 1, T))
    codes = rng.integers(0, config.card, (N, config.n_q, T))
    return Minibatch(
        streams=np.concatenate([text, codes], axis=1).astype(np.int32),
        old_logprob=np.full((N, T), -2.0, np.float32),
        advantage=np.array([1.0, -1.0, 2.0, 0.5], np.float32),
        mask=np.arange(T) < np.array([T, 3, 0, 6])[:, None],
    )


said = jax.jit(forward_text, static_argnums=0)


def gradient_on(config, lm, adapted, batch, devices, shape):
    mesh = make_mesh(devices, mapping="pmap" if shape is None else "shard_map", shape=shape)
    parts = make_parts(config, training_form(lm), mesh)
    loss = text_loss(training_form(lm), parts.text, LossConfig(beta=0.5), 0.7)
    trainable, frozen = partition(stack_layers(adapted), wanted_of(config))
    mapped = mesh.map(
        lambda weights, constants, part: mean_gradient(
            loss, parts.trained, weights, constants, part
        ),
        in_axes=(parts.trained.specs, parts.constants, 0),
        out_axes=(parts.trained.specs, None),
    )
    constants = Constants(mesh.put(frozen, parts.constants.frozen), {})
    split = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
    gradient, metrics = mapped(mesh.put(trainable, parts.trained.specs), constants, split)
    return jax.device_get(gradient), metrics


@pytest.fixture(scope="module")
def alone(config, lm, adapted, batch):
    return gradient_on(config, lm, adapted, batch, 1, None)


def test_only_the_adapters_of_the_targets_are_trained(config, lm, adapted, alone):
    gradient, _ = alone
    paths = {
        jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(gradient)
    }
    assert len(paths) == 8  # two for each of qkv, out, gate_up, down
    assert all("temporal" in path and path.split("'")[-2] in LEAVES for path in paths)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.abs(leaf).max() > 1e-6, jax.tree_util.keystr(path)
    head = replace(LORA, targets=("head",))
    assert is_trained(head, ("text_head", "lora_a")) and not is_trained(
        head, ("text_head", "kernel")
    )
    assert not is_trained(head, ("temporal", "layers", "mlp", "down", "lora_a"))


def test_the_reference_is_the_model_without_its_adapters(config, lm, small, adapted, batch, alone):
    """At the start the KL is zero; away from it, it is that to the base, which needs no copy."""
    fresh = add_adapters(lm, small.params, seed=3)
    _, metrics = gradient_on(config, lm, fresh, batch, 1, None)
    np.testing.assert_allclose(metrics["kl"], 0, atol=1e-6)
    assert make_parts(config, training_form(lm), make_mesh(1)).constants.reference == {}

    streams = jnp.asarray(batch.streams)
    policy = jax.nn.log_softmax(said(lm, adapted, streams))
    base = jax.nn.log_softmax(said(small.lm, small.params, streams))
    kl = np.asarray((jnp.exp(policy) * (policy - base)).sum(-1))[batch.mask].mean()
    assert kl > 1e-3
    np.testing.assert_allclose(alone[1]["kl"], kl, rtol=1e-4)


@pytest.mark.parametrize(("devices", "shape"), [(2, None), (4, (2, 2)), (4, (4,))])
def test_gradients_equal_one_device(devices, shape, config, lm, adapted, batch, alone):
    gradient, metrics = gradient_on(config, lm, adapted, batch, devices, shape)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient, alone[0])
    np.testing.assert_allclose(metrics["kl"], alone[1]["kl"], rtol=1e-5)


def test_rollouts_decode_with_base_and_adapters_side_by_side(config, lm, adapted):
    mesh = make_mesh(4, mapping="shard_map", shape=(2, 2))
    parts = make_parts(config, training_form(lm), mesh)
    trainable, frozen = partition(stack_layers(adapted), wanted_of(config))

    def program(weights, frozen):
        return make_sync(parts.text)(merge(weights, frozen))

    sync = mesh.map(program, in_axes=(parts.trained.specs, parts.constants.frozen), out_axes=None)
    text = sync(mesh.put(trainable, parts.trained.specs), mesh.put(frozen, parts.constants.frozen))
    rest = {name: value for name, value in frozen.items() if name not in text}
    same = jax.tree.map(np.array_equal, {**rest, **text}, adapted)
    assert jax.tree.all(same)


def test_fused_weights_say_the_same(lm, small, adapted, batch):
    plain = fused(jax.device_get(adapted), LORA.scaling)
    assert jax.tree.structure(plain) == jax.tree.structure(small.params)
    streams = jnp.asarray(batch.streams)
    np.testing.assert_allclose(
        said(small.lm, plain, streams), said(lm, adapted, streams), atol=1e-4
    )


def test_fresh_adapters_are_seeded_and_start_at_nothing(lm, small):
    one, two = (split_adapters(add_adapters(lm, small.params, seed))[0] for seed in (1, 2))
    again, _ = split_adapters(add_adapters(lm, small.params, 1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    qkv = [adapters["temporal"]["layers"][0]["attention"]["qkv"] for adapters in (one, two)]
    assert (qkv[0]["lora_a"] != qkv[1]["lora_a"]).any() and not qkv[0]["lora_b"].any()
    assert 0.5 / 4 < np.abs(qkv[0]["lora_a"]).max() <= 1 / 4  # D = 16
