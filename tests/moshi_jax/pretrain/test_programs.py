"""The loss is the reference's, and every mapping gives the update of one device."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from grpo.config import LoraTraining, OptimizerConfig
from grpo.layout import make_layout
from grpo.mesh import make_mesh
from grpo.policy import training_form
from helium_jax import stack_layers
from moshi_jax.pretrain import PretrainConfig
from moshi_jax.pretrain.programs import make_programs, supervised_loss
from moshi_jax.verify.recording import read_recording
from moshi_jax.verify.runs import load, read_config

NONE = Path("none")
ONE = PretrainConfig(
    checkpoint=NONE, data=NONE, run_dir=NONE, steps=10, batch=4, cut_frames=9,
    first_codebook_weight=3.0, precision="f32",
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_updates=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def codes():
    """Four cuts that know unequally much: the mean of devices' means would be another number."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 8, (4, 5, 9)).astype(np.int32)
    codes[0, :, 2:] = -1
    codes[1, 0] = 3
    codes[3, 1:, 5:] = -1
    return codes


def test_the_loss_is_that_of_moshi_finetune(tiny_checkpoint):
    recording = read_recording(tiny_checkpoint.with_name("train_loss.safetensors"))
    lm, params = load(read_config(recording), recording)
    lm, params = training_form(lm), stack_layers(params)
    layout = make_layout(params, mesh := make_mesh(1))
    codes = recording.tensors["inputs/codes"]
    for name, weights in recording.provenance["options"].items():
        config = replace(
            ONE,
            first_codebook_weight=weights["first_codebook_weight_multiplier"],
            text_padding_weight=weights["text_padding_weight"],
        )
        loss = supervised_loss(lm, layout, config)
        got = mesh.map(loss, in_axes=(None, None, 0), out_axes=0)(params, {}, codes[None])
        wanted = recording.expected(name)
        np.testing.assert_allclose(got.sum[0], wanted["loss"][0], rtol=1e-5)
        for number, expected in enumerate(wanted["loss_per_codebook"]):
            total, weight = got.metrics[f"nats/codebook_{number}"]
            np.testing.assert_allclose(total[0] / weight[0], expected, rtol=1e-5)


def run(config, lm, params, mesh, codes, updates=3):
    programs = make_programs(config, mesh, lm)
    trainable, frozen = programs.base(params)
    before = mesh.whole(frozen)
    state = programs.init(trainable)
    rows = codes.reshape(mesh.size, -1, *codes.shape[1:])
    for _ in range(updates):
        state, metrics = programs.update(state, frozen, rows)
    sums = mesh.fetch(programs.evaluate(state, frozen, rows))
    jax.tree.map(np.testing.assert_array_equal, before, mesh.whole(frozen))
    return mesh.whole(state.trainable), mesh.fetch(metrics), sums


@pytest.fixture(scope="module")
def alone(small, codes):
    return run(ONE, small.lm, small.params, make_mesh(1), codes)


@pytest.mark.parametrize(("mapping", "devices"), [("pmap", 2), ("shard_map", 2)])
def test_every_mapping_equals_one_device(small, codes, alone, mapping, devices):
    got = run(ONE, small.lm, small.params, make_mesh(devices, mapping=mapping), codes)
    for one, other in zip(alone, got, strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(b, a, rtol=2e-4, atol=2e-5), one, other
        )


def test_every_parameter_learns_and_the_loss_falls(small, codes, alone):
    before = jax.device_get(stack_layers(small.params))
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, alone[0])
    assert all(jax.tree.leaves(moved))
    _, metrics, _ = run(ONE, small.lm, small.params, make_mesh(1), codes, updates=1)
    assert alone[1]["loss"] < 0.95 * metrics["loss"]


def test_adapters_alone_move_with_lora(small, codes):
    """In both transformers; `run` itself holds that the base does not move."""
    from grpo.adapters import add_adapters, with_adapters

    lora = LoraTraining(rank=2, targets=("attention",))
    config = replace(ONE, lora=lora)
    lm = with_adapters(small.lm, lora)
    params = add_adapters(lm, small.params, 0)
    trained, _, _ = run(config, lm, params, make_mesh(1), codes)
    paths = {
        tuple(str(getattr(key, "key", "")) for key in path)
        for path, _ in jax.tree_util.tree_flatten_with_path(trained)[0]
    }
    assert {path[0] for path in paths} == {"temporal", "depth"}
    assert {path[-1] for path in paths} == {"lora_a", "lora_b"}
    assert all("attention" in path for path in paths)
    assert all(np.any(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(trained)[0])
