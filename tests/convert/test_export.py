import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import (
    ConversionError,
    compare,
    export_mimi,
    export_moshi,
    load_mimi,
    load_moshi,
    to_jax,
)
from convert.safetensors_io import SafetensorsFile
from helium_jax import stack_layers, unstack_layers
from layers_jax import Precision


def files(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.suffix != ".md"
    }


@pytest.mark.parametrize("precision", [None, Precision.f32(), Precision.bf16()])
def test_loaded_and_exported_is_the_same_folder(precision, tiny_checkpoint, tmp_path):
    """Also from parameters that were widened to f32: the formats are those of the source."""
    module, params = load_moshi(tiny_checkpoint, precision=precision)
    made = export_moshi(tmp_path / "out", module.config, params, source=tiny_checkpoint)
    assert files(made) == files(tiny_checkpoint)


def test_a_mix_of_formats_comes_back_tensor_by_tensor(tiny_weights, checkpoint_with, tmp_path):
    formats = (np.float32, np.float16, tiny_weights["out_norm.alpha"].dtype)
    mixed = {
        key: value.astype(formats[index % 3])
        for index, (key, value) in enumerate(sorted(tiny_weights.items()))
    }
    source = checkpoint_with(mixed)
    for precision in (None, Precision.f32()):
        module, params = load_moshi(source, precision=precision)
        made = export_moshi(tmp_path / str(precision), module.config, params, source=source)
        assert files(made) == files(source)


def test_metadata_and_released_names_are_kept(tiny_checkpoint, tiny_weights, tmp_path):
    from safetensors.numpy import save_file

    source = tmp_path / "source"
    shutil.copytree(tiny_checkpoint, source)
    renamed = {
        key.replace("in_proj_weight", "in_proj.weight"): value
        for key, value in tiny_weights.items()
    }
    save_file(renamed, source / "model.safetensors", {"format": "pt"})
    module, params = load_moshi(source)
    made = export_moshi(tmp_path / "out", module.config, params, source=source)
    with SafetensorsFile(made / "model.safetensors") as file:
        assert file.metadata == {"format": "pt"}
        assert set(file.tensors) == set(tiny_weights)
    assert compare(made, tiny_checkpoint).differences == []


def test_trained_values_are_rounded_to_the_formats_of_the_source(tiny_checkpoint, tmp_path):
    module, params = load_moshi(tiny_checkpoint, precision=Precision.f32())
    trained = jax.tree.map(lambda leaf: leaf * 1.003, params)
    made = export_moshi(tmp_path / "out", module.config, trained, source=tiny_checkpoint)
    _, back = load_moshi(made)
    expected = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), trained)
    jax.tree.map(np.testing.assert_array_equal, back, expected)
    assert compare(made, tiny_checkpoint).differences != []


@pytest.mark.parametrize("dtypes", ["float32", "bfloat16"])
def test_one_format_for_all_when_asked(dtypes, tiny_checkpoint, tmp_path):
    module, params = load_moshi(tiny_checkpoint, precision=Precision.f32())
    made = export_moshi(
        tmp_path / "out", module.config, params, source=tiny_checkpoint, dtypes=dtypes
    )
    _, back = load_moshi(made)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(back)} == {dtypes}
    with pytest.raises(Exception, match="float64"):  # by type check here, by value elsewhere
        export_moshi(
            tmp_path / "x",
            module.config,
            params,
            dtypes="float64",  # pyrefly: ignore[bad-argument-type]
        )


def test_a_converted_folder_is_a_source_too(tiny_checkpoint, tmp_path):
    to_jax(tiny_checkpoint, tmp_path / "jax")
    module, params = load_moshi(tmp_path / "jax", precision=Precision.f32())
    made = export_moshi(tmp_path / "out", module.config, params, source=tmp_path / "jax")
    assert files(made) == files(tiny_checkpoint)


def test_without_a_source_the_folder_describes_itself(small_lm, random_params, tmp_path):
    params = random_params(small_lm)
    made = export_moshi(tmp_path / "out", small_lm, params)
    assert set(files(made)) == {"config.json", "model.safetensors"}
    module, back = load_moshi(made, precision=Precision.f32())
    assert module.config == small_lm
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_a_codec_is_written_without_its_derived_vectors(tiny_checkpoint, tmp_path):
    module, params = load_mimi(tiny_checkpoint)
    path = export_mimi(tmp_path / "codec.safetensors", module.config, params)
    original = tiny_checkpoint / "tokenizer-tiny-mimi.safetensors"
    assert path.read_bytes() == original.read_bytes()


def test_parameters_of_another_shape_are_refused(tiny_checkpoint, small_lm, tmp_path):
    module, params = load_moshi(tiny_checkpoint)
    wrong = jax.tree.map(lambda leaf: leaf, params)
    del wrong["text_head"]
    wrong["temporal"]["layers"].append(wrong["temporal"]["layers"][0])
    wrong["out_norm"]["scale"] = wrong["out_norm"]["scale"][:3]
    wrong["text_embedding"]["table"] = wrong["text_embedding"]["table"].astype(jnp.int32)
    with pytest.raises(ConversionError) as caught:
        export_moshi(tmp_path / "out", module.config, wrong, source=tiny_checkpoint)
    message = str(caught.value)
    for part in (
        "moshi parameters: missing text_head.kernel",
        "unexpected temporal.layers.2.",
        "out_norm.scale got [3], expected [64]",
        "text_embedding.table got int32, expected one of F32, BF16, F16",
    ):
        assert part in message
    with pytest.raises(ConversionError, match="wrong shape"):
        export_moshi(tmp_path / "out", small_lm, params)
    assert list(tmp_path.iterdir()) == []


def test_the_training_layout_has_to_be_unstacked(tiny_checkpoint, tmp_path):
    module, params = load_moshi(tiny_checkpoint)
    stacked = stack_layers(params)
    with pytest.raises(ConversionError, match="with a list entry a layer"):
        export_moshi(tmp_path / "a", module.config, stacked, source=tiny_checkpoint)
    made = export_moshi(
        tmp_path / "b", module.config, unstack_layers(stacked), source=tiny_checkpoint
    )
    assert files(made) == files(tiny_checkpoint)


def test_the_source_must_have_the_same_config(small_lm, random_params, tiny_checkpoint, tmp_path):
    with pytest.raises(ConversionError, match="dim is 24, in the source 64"):
        export_moshi(tmp_path / "out", small_lm, random_params(small_lm), source=tiny_checkpoint)


def test_nothing_is_overwritten_or_left_half_written(tiny_checkpoint, tmp_path):
    module, params = load_moshi(tiny_checkpoint)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="expected a new or an empty folder"):
        export_moshi(tmp_path / "used", module.config, params, source=tiny_checkpoint)
    assert files(tmp_path / "used") == {"config.json": b"{}"}
    source = tmp_path / "source"
    shutil.copytree(tiny_checkpoint, source)
    (source / "tokenizer-tiny-mimi.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="tokenizer-tiny-mimi"):
        export_moshi(tmp_path / "out", module.config, params, source=source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "used"]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # the reference's own
def test_the_reference_loads_an_export_strictly(tiny_checkpoint, tmp_path):
    torch = pytest.importorskip("torch")
    loaders = pytest.importorskip("moshi.models.loaders")
    module, params = load_moshi(tiny_checkpoint, precision=Precision.f32())
    made = export_moshi(
        tmp_path / "out", module.config, params, source=tiny_checkpoint, dtypes="float32"
    )
    raw = json.loads((made / "config.json").read_text())
    names = ("moshi_name", "mimi_name", "mimi_config_name", "tokenizer_name")
    weights, codec, codec_config, _ = (made / raw.pop(name) for name in names)
    for key in ("model_type", "lm_gen_config"):
        raw.pop(key)
    lm = loaders.get_moshi_lm(weights, raw, dtype=torch.float32)
    theirs = dict(lm.state_dict())
    table = params["audio_embedding"]["table"]
    np.testing.assert_array_equal(theirs["emb.15.weight"].numpy(), table[15 * 257 :])
    depth = params["depth"]["layers"][1]["attention"]
    for step in range(8):
        out = theirs[f"depformer.layers.1.self_attn.out_projs.{step}.weight"].numpy()
        np.testing.assert_array_equal(out.T, depth[step]["out"]["kernel"])
    mimi = loaders.get_mimi(codec, json.loads(codec_config.read_text()), num_codebooks=8)
    _, codec_params = load_mimi(made)
    books = [*mimi.quantizer.rvq_first.vq.layers, *mimi.quantizer.rvq_rest.vq.layers]
    ours = codec_params["quantizer"]
    for book, mine in zip(
        books, ours["semantic"]["codebooks"] + ours["acoustic"]["codebooks"], strict=True
    ):
        np.testing.assert_array_equal(book._codebook.embedding.numpy(), mine["embedding"])


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_the_reference_loads_a_model_that_was_never_released(small_lm, random_params, tmp_path):
    """A config.json of our own, with grouped queries: both say the same about every key."""
    torch = pytest.importorskip("torch")
    loaders = pytest.importorskip("moshi.models.loaders")
    made = export_moshi(tmp_path / "out", small_lm, random_params(small_lm), dtypes="bfloat16")
    raw = json.loads((made / "config.json").read_text())
    weights = made / raw.pop("moshi_name")
    raw.pop("model_type")
    lm = loaders.get_moshi_lm(weights, raw, dtype=torch.float32)
    assert sum(p.numel() for p in lm.parameters()) == sum(
        leaf.size for leaf in jax.tree.leaves(load_moshi(made)[1])
    )
