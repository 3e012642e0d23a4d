import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert import ConversionError, compare, load_mimi, load_moshi, read_configs, to_jax, to_torch
from convert.files import MIMI_NAMES, file_alone, find_files


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    copy = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, copy)
    return copy


def change(folder, drop=(), **values):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({k: v for k, v in config.items() if k not in drop}))


@pytest.mark.parametrize("name", MIMI_NAMES)
def test_the_codec_has_two_names(name, folder):
    (folder / "tokenizer-tiny-mimi.safetensors").rename(folder / name)
    change(folder, drop=["mimi_name"])
    found = read_configs(folder)
    assert found.weights("mimi") == folder / name and found.file_name("mimi") == name
    assert load_mimi(folder)[0].config == found.mimi


def test_a_fine_tuned_folder_has_neither_codec_nor_tokenizer(folder, tmp_path, tiny_checkpoint):
    """moshi-finetune writes merged weights under its own names beside a config with LoRA keys."""
    merged = split_names(load_file(folder / "model.safetensors"))
    save_file(merged, folder / "consolidated.safetensors")
    for name in (
        "model.safetensors",
        "tokenizer-tiny-mimi.safetensors",
        "tokenizer_spm_tiny.model",
    ):
        (folder / name).unlink()
    names = ["moshi_name", "mimi_name", "tokenizer_name", "mimi_config_name"]
    change(folder, drop=names, lora=True, lora_rank=4, lora_scaling=2.0)
    found = read_configs(folder)
    assert found.parts == ["moshi"] and found.lm.lora is None
    assert found.weights("moshi") == folder / "consolidated.safetensors"
    to_jax(folder, tmp_path / "jax")
    to_torch(tmp_path / "jax", tmp_path / "back")
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert not written.get("lora") and written["moshi_name"] == "model.safetensors"
    back = tmp_path / "back" / "model.safetensors"
    assert compare(back, tiny_checkpoint / "model.safetensors").differences == []
    with pytest.raises(FileNotFoundError, match="cannot read mimi weights"):
        load_mimi(folder)


def split_names(tensors):
    """The names of moshi 0.2's own state dict: a matrix a step."""
    made = {}
    for key, value in tensors.items():
        for fused, split in (("in_proj_weight", "in_projs"), ("out_proj.weight", "out_projs")):
            if key.endswith(fused):
                steps = 8 if key.startswith("depformer") else 1
                for s, rows in enumerate(np.split(value, steps)):
                    made[f"{key.removesuffix(fused)}{split}.{s}.weight"] = np.ascontiguousarray(
                        rows
                    )
                break
        else:
            made[key] = value
    return made


def test_adapters_alone_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "lora.safetensors")
    with pytest.raises(ConversionError, match=r"holds adapters only .*convert fuse BASE ADAPTERS"):
        read_configs(folder)


def test_a_file_alone_is_one_part(folder, tmp_path, tiny_checkpoint):
    found = read_configs(folder / "model.safetensors")
    assert found.parts == ["moshi"]
    assert found.lm == read_configs(folder).lm
    to_jax(folder / "model.safetensors", tmp_path / "jax")
    assert load_moshi(tmp_path / "jax")[0].config == found.lm
    codec = file_alone(folder / "tokenizer-tiny-mimi.safetensors")
    assert list(codec.paths) == ["mimi_name"]


def test_paths_that_lead_out_are_all_named(tmp_path):
    _, problems = find_files(tmp_path, {"moshi_name": "../x", "mimi_name": "/etc/x"})
    assert len(problems) == 2
    assert all("expected a file inside the folder" in problem for problem in problems)


def test_a_quantised_release_is_read_and_released_as_a_plain_one(folder, tmp_path):
    from convert.layouts import dequantised

    tensors, expected = load_file(folder / "model.safetensors"), {}
    file = dict(tensors)
    for key in ("text_linear.weight", "transformer.layers.1.self_attn.in_proj_weight"):
        values = tensors[key].astype(np.float32)
        scales = np.abs(values).max(axis=1)
        file[key] = np.rint(values / scales[:, None] * 127).astype(np.int8)
        file[f"{key}_scb"] = scales
        expected[key] = dequantised(file[key], scales)
    save_file(file, folder / "model.q8.safetensors")
    (folder / "model.safetensors").unlink()
    change(folder, moshi_name="model.q8.safetensors", quantize=True)
    to_jax(folder, tmp_path / "jax")
    to_torch(tmp_path / "jax", tmp_path / "back")
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert written["moshi_name"] == "model.safetensors" and not written.get("quantize")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert set(back) == set(tensors)
    for key, value in back.items():
        wanted = expected.get(key, tensors[key])
        assert value.dtype == wanted.dtype
        np.testing.assert_array_equal(value, wanted)
    shutil.rmtree(tmp_path / "jax")
