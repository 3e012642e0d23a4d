import re
from dataclasses import replace

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert import (
    ConversionError,
    export_lora,
    export_moshi,
    load_lora,
    lora_from_tensors,
    params_from_tensors,
)
from convert.moshi import lora_rules
from convert.rules import flatten, plan
from convert.sources import abstract_params, memory_source
from helium_jax import MoshiConfig
from layers_jax import LoraConfig, fuse, merge_adapters, split_adapters

PREFIX = "lora_weights/"


@pytest.fixture(scope="module")
def recorded(golden):
    """Config with adapters, base weights and adapters of a recorded run."""
    recording = golden("lora")
    tensors = recording.tensors
    adapters = {key[len(PREFIX) :]: v for key, v in tensors.items() if key.startswith(PREFIX)}
    return MoshiConfig.from_dict(recording.config), recording.weights, adapters, tensors


def packed(adapters):
    """The layout before moshi 0.2: the factors of all steps of an attention matrix in one."""
    groups, kept = {}, {}
    for key, value in adapters.items():
        if match := re.fullmatch(r"(.*self_attn)\.(in|out)_projs\.(\d+)\.(lora_.\.weight)", key):
            name = f"{match[1]}.{match[2]}_proj.{match[4]}"
            groups.setdefault(name, {})[int(match[3])] = value
        else:
            kept[key] = value
    joined = {
        name: np.concatenate([steps[s] for s in sorted(steps)]) for name, steps in groups.items()
    }
    return {**kept, **joined}


def test_every_matrix_of_the_reference_has_its_adapter(recorded):
    """The names and shapes are those that the reference saved, no more and no fewer."""
    config, _, adapters, _ = recorded
    read = lora_from_tensors(config, adapters)
    assert len(jax.tree.leaves(read)) == len(adapters) == 186
    layer = read["depth"]["layers"][1]["attention"][5]["qkv"]
    theirs = adapters["depformer.layers.1.self_attn.in_projs.5.lora_A.weight"]
    np.testing.assert_array_equal(layer["lora_a"], theirs.T)
    assert layer["lora_b"].shape == (4, 2, 3, 16)


@pytest.mark.parametrize("run", ["f32", "bf16"])
def test_adapters_added_in_are_the_weights_that_the_reference_fused(recorded, run):
    """Attention matrices of all steps among them: each factor is where it belongs."""
    config, weights, adapters, tensors = recorded
    plain = replace(config, lora=None)
    dtype = np.dtype(np.float32 if run == "f32" else ml_dtypes.bfloat16)
    base = params_from_tensors(plain, weights, dtype=dtype)
    params = merge_adapters(lora_from_tensors(config, adapters, dtype=dtype), base)
    fused = fuse(params, config.lora.scaling)
    source = memory_source(plain, fused, abstract_params(plain), subject="fused")
    prefix = f"expected/fused_weights_{run}/"
    expected = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    assert {"depformer.layers.0.self_attn.in_proj_weight"} < set(expected)
    step = 1e-6 if run == "f32" else 2**-8  # another order of additions may round the other way
    for name, values in expected.items():
        got, wanted = np.float64(source.read(name)), np.float64(values)
        np.testing.assert_allclose(got, wanted, rtol=step, atol=1e-6, err_msg=name)
        assert np.abs(wanted - np.float64(weights[name])).max() > 0.05


def test_one_tree_can_hold_base_and_adapters_of_one_set_of_tensors(recorded):
    config, weights, adapters, _ = recorded
    both = params_from_tensors(config, {**weights, **adapters})
    ours, base = split_adapters(both)
    alone = params_from_tensors(replace(config, lora=None), weights)
    for left, right in (
        (ours, lora_from_tensors(config, adapters, dtype=np.float32)),
        (base, alone),
    ):
        assert jax.tree.structure(left) == jax.tree.structure(right)
        jax.tree.map(np.testing.assert_array_equal, left, right)


def test_fused_names_are_split_as_the_load_hook_of_the_reference_does(recorded):
    config, _, adapters, _ = recorded
    old = packed(adapters)
    assert old["depformer.layers.0.self_attn.in_proj.lora_A.weight"].shape == (8 * 4, 32)
    left, right = lora_from_tensors(config, old), lora_from_tensors(config, adapters)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_there_and_back_is_byte_identical_under_the_new_names(recorded, tmp_path):
    config, _, adapters, _ = recorded
    save_file(adapters, tmp_path / "lora.safetensors")
    made = export_lora(tmp_path / "made", config, load_lora(tmp_path / "lora.safetensors", config))
    back = load_file(made)
    assert {k: (v.dtype, v.tobytes()) for k, v in back.items()} == {
        k: (v.dtype, v.tobytes()) for k, v in adapters.items()
    }


def test_grouped_heads_and_unequal_sizes_make_the_round_trip(small_lm, tmp_path):
    """No two sizes alike, so that no factor fits where another belongs."""
    config = replace(small_lm, lora=LoraConfig(rank=5))
    rng = np.random.default_rng(0)
    shapes = split_adapters(abstract_params(config))[0]
    adapters = jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(np.float32), shapes)
    back = load_lora(export_lora(tmp_path / "x.safetensors", config, adapters), config)
    assert jax.tree.structure(back) == jax.tree.structure(adapters)
    jax.tree.map(np.testing.assert_array_equal, back, adapters)


def test_the_table_counts_the_trainable_parameters_of_moshi_finetune():
    """387,874,816 at rank 128 on Moshi 7B. Shapes out of a one-layer model: building 7B is slow."""
    config = MoshiConfig(lora=LoraConfig())
    one = replace(config, num_layers=1, depformer_num_layers=1)
    shapes = split_adapters(abstract_params(one))[0]
    shapes["temporal"]["layers"] *= config.num_layers
    shapes["depth"]["layers"] *= config.depformer_num_layers
    made = plan(lora_rules(config), {path: leaf.shape for path, leaf in flatten(shapes).items()})
    for side in (made.leaf_shapes, made.tensor_shapes):
        assert sum(int(np.prod(shape)) for shape in side.values()) == 387_874_816


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: {}, r"missing .*text_linear\.lora_A\.weight"),
        (lambda t: {f"base.{k}": v for k, v in t.items()}, r"unexpected .*base\."),
        (
            lambda t: {**t, "emb.0.weight": np.zeros((2, 2), np.float32)},
            r"unexpected emb\.0\.weight",
        ),
        (
            lambda t: {**t, "text_linear.lora_A.weight": t["text_linear.lora_A.weight"][:2]},
            r"text_linear\.lora_A\.weight got \[2, 64\], expected \[4, 64\]",
        ),
    ],
)
def test_a_file_that_is_not_of_this_model_is_refused(recorded, change, message):
    config, _, adapters, _ = recorded
    with pytest.raises(ConversionError, match=message):
        lora_from_tensors(config, change(adapters))


def test_a_model_without_adapters_cannot_load_any(recorded):
    config, _, adapters, _ = recorded
    with pytest.raises(ValueError, match=r"has no adapters, expected a config with lora"):
        lora_from_tensors(replace(config, lora=None), adapters)


def test_a_release_is_not_written_with_adapters_in_it(recorded, tmp_path):
    config, weights, adapters, _ = recorded
    params = params_from_tensors(config, {**weights, **adapters})
    with pytest.raises(ValueError, match=r"have adapters, expected a plain model.*fuse"):
        export_moshi(tmp_path / "out", config, params)
    assert not (tmp_path / "out").exists()
