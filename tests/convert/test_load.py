import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import ConversionError, load_mimi, load_moshi, params_from_tensors
from convert.rules import flatten
from layers_jax import Precision, quantize_matrices, split


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def dtypes(params):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(params)}


def split_names(weights):
    """The names that moshi 0.2 gives the same tensors: one a step."""
    result = {}
    for key, value in weights.items():
        steps = 8 if key.startswith("depformer.") else 1
        for fused, one in (
            ("in_proj_weight", "in_projs.{}.weight"),
            ("out_proj.weight", "out_projs.{}.weight"),
        ):
            if key.endswith(fused):
                for step, rows in enumerate(np.split(value, steps)):
                    result[key.replace(fused, one.format(step))] = rows
                break
        else:
            result[key] = value
    return result


def test_the_tree_is_the_one_the_module_is_bound_to(tiny_checkpoint):
    for module, params in (
        load_moshi(tiny_checkpoint, precision=Precision.f32()),
        load_mimi(tiny_checkpoint),
    ):
        shapes = split(module)[1]
        assert jax.tree.structure(params) == jax.tree.structure(shapes)
        for path, leaf in flatten(shapes).items():
            got = flatten(params)[path]
            assert isinstance(got, jax.Array)
            assert (got.shape, got.dtype) == (leaf.shape, leaf.dtype), path


def test_the_stored_format_is_kept_or_cast_exactly(tiny_checkpoint):
    module, stored = load_moshi(tiny_checkpoint)
    assert dtypes(stored) == {"bfloat16"} and module.precision == Precision.bf16()
    module, wide = load_moshi(tiny_checkpoint, precision=Precision.f32())
    assert dtypes(wide) == {"float32"} and module.precision == Precision.f32()
    assert_same(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), stored), wide)


def test_mixed_formats_load_into_one_leaf_without_loss(tiny_weights, checkpoint_with):
    mixed = {**tiny_weights, "emb.3.weight": tiny_weights["emb.3.weight"].astype(np.float32) / 3}
    module, params = load_moshi(checkpoint_with(mixed))
    assert module.precision == Precision.f32()
    table = params["audio_embedding"]["table"]
    assert table.dtype == jnp.float32
    rows = mixed["emb.3.weight"].shape[0]
    np.testing.assert_array_equal(table[3 * rows : 4 * rows], mixed["emb.3.weight"])
    assert params["out_norm"]["scale"].dtype == jnp.bfloat16


def test_both_layouts_of_names_give_the_same_parameters(
    tiny_checkpoint, tiny_weights, checkpoint_with
):
    folder = checkpoint_with(split_names(tiny_weights))
    assert_same(load_moshi(folder)[1], load_moshi(tiny_checkpoint)[1])


def test_each_tensor_is_where_it_belongs(tiny_checkpoint, tiny_weights):
    _, params = load_moshi(tiny_checkpoint)
    depth = params["depth"]
    for ours, theirs in (
        (params["audio_embedding"]["table"][10 * 257 : 11 * 257], "emb.10.weight"),
        (params["text_head"]["kernel"].T, "text_linear.weight"),
        (depth["inputs"][5]["kernel"].T, "depformer_in.5.weight"),
        (depth["audio_embeddings"][6]["table"], "depformer_emb.6.weight"),
        (depth["heads"][7]["kernel"].T, "linears.7.weight"),
        (
            depth["layers"][1]["mlp"][4]["down"]["kernel"].T,
            "depformer.layers.1.gating.4.linear_out.weight",
        ),
    ):
        np.testing.assert_array_equal(ours, tiny_weights[theirs])
    out = tiny_weights["depformer.layers.0.self_attn.out_proj.weight"]
    for step in range(8):
        ours = depth["layers"][0]["attention"][step]["out"]["kernel"]
        np.testing.assert_array_equal(ours.T, out[32 * step : 32 * step + 32])


def test_every_problem_of_the_file_is_in_one_error(tiny_weights, checkpoint_with):
    wrong = {**tiny_weights, "stranger": np.zeros(3, np.float32)}
    del wrong["out_norm.alpha"]
    for layer in range(2):
        key = f"transformer.layers.{layer}.gating.linear_out.weight"
        wrong[key] = wrong[key].T
    wrong["text_emb.weight"] = np.zeros(wrong["text_emb.weight"].shape, np.int8)
    with pytest.raises(ConversionError) as caught:
        load_moshi(checkpoint_with(wrong))
    assert caught.value.problems == (
        "missing out_norm.alpha",
        "unexpected stranger",
        "wrong shape: transformer.layers.{0-1}.gating.linear_out.weight got [176, 64], "
        "expected [64, 176] (transposed)",
        "wrong dtype: text_emb.weight got I8, expected one of F32, BF16, F16",
        "check that config.json describes this file",
    )
    assert "\n" not in str(caught.value)


def test_weights_that_are_cut_short_are_refused(tiny_weights, checkpoint_with):
    folder = checkpoint_with(tiny_weights)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ConversionError, match=r"got \d+ bytes, expected \d+ from its header"):
        load_moshi(folder)


def test_weights_that_are_not_there_are_named(tiny_weights, checkpoint_with):
    folder = checkpoint_with(tiny_weights)
    (folder / "tokenizer-tiny-mimi.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer-tiny-mimi\.safetensors"):
        load_mimi(folder)


def test_tensors_in_memory_need_no_folder(tiny_checkpoint, tiny_weights, small_lm):
    module, params = load_moshi(tiny_checkpoint, precision=Precision.f32())
    assert_same(params_from_tensors(module.config, tiny_weights), params)
    kept = params_from_tensors(module.config, tiny_weights, dtype=jnp.bfloat16)
    assert dtypes(kept) == {"bfloat16"}
    with pytest.raises(ConversionError, match=r"tensors: .*wrong shape"):
        params_from_tensors(small_lm, tiny_weights)


def test_int8_matrices_are_those_of_the_stored_values_and_nothing_else_is(tiny_checkpoint):
    precision = Precision.int8_weights()
    module, params = load_moshi(tiny_checkpoint, precision=precision)
    _, stored = load_moshi(tiny_checkpoint)
    assert module.precision == precision
    assert jax.tree.structure(params) == jax.tree.structure(split(module)[1])
    assert_same(params, quantize_matrices(stored, split(module)[1]))
    kinds = {path.rsplit(".", 1)[-1]: leaf.dtype.name for path, leaf in flatten(params).items()}
    # The model's norms have a bfloat16 scale each, its matrices a float32 one a channel.
    assert kinds["kernel"] == "int8" and kinds["table"] == "bfloat16"
    assert params["out_norm"]["scale"].dtype == jnp.bfloat16
    layer = params["temporal"]["layers"][0]["mlp"]["gate_up"]
    original = stored["temporal"]["layers"][0]["mlp"]["gate_up"]["kernel"].astype(jnp.float32)
    error = jnp.abs(layer["kernel"] * layer["scale"] - original)
    assert bool(jnp.all(error <= layer["scale"] * 0.5001))
