import json
import shutil

import pytest

from convert import ConversionError, read_configs
from convert.checkpoint import DEFAULT_NAMES, write_config
from helium_jax import MoshiConfig, moshi_7b
from mimi_jax import MimiConfig, mimi_24khz


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    copy = tmp_path / "checkpoint"
    copy.mkdir()
    for name in ("config.json", "mimi_config.json"):
        shutil.copy(tiny_checkpoint / name, copy)
    return copy


def change(folder, name="config.json", **values):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_release_says_what_it_is(tiny_checkpoint):
    found = read_configs(tiny_checkpoint)
    raw = json.loads((tiny_checkpoint / "config.json").read_text())
    assert found.lm == MoshiConfig.from_dict(raw)
    assert found.mimi.quantizer.n_q == 16 and found.mimi.num_codebooks == 8
    assert found.lm_gen_config == raw["lm_gen_config"]
    assert not found.is_jax
    assert found.weights("moshi") == tiny_checkpoint / "model.safetensors"
    assert found.weights("mimi") == tiny_checkpoint / "tokenizer-tiny-mimi.safetensors"
    assert found.tokenizer == tiny_checkpoint / "tokenizer_spm_tiny.model"
    assert found.side_files == ["config.json", "mimi_config.json", "tokenizer_spm_tiny.model"]


def test_without_json_files_it_is_the_first_release(tmp_path):
    (tmp_path / "model.safetensors").touch()
    found = read_configs(tmp_path)
    assert (found.lm, found.mimi) == (moshi_7b(), mimi_24khz(8))
    assert dict(found.names) == DEFAULT_NAMES
    assert found.side_files == ["tokenizer_spm_32k_3.model"]
    assert found.lm_gen_config == {}


def test_the_codec_uses_as_many_codebooks_as_either_speaker_has(folder):
    change(folder, dep_q=4)
    assert read_configs(folder).mimi.num_codebooks == 12


@pytest.mark.parametrize("name", ["hf://kyutai/other/file.safetensors", "../x", "/etc/x", "", 7])
def test_files_outside_the_folder_are_refused(name, folder):
    change(folder, mimi_name=name)
    with pytest.raises(ConversionError, match=r"mimi_name is .*, expected a file inside"):
        read_configs(folder)


def test_everything_wrong_is_said_at_once(folder):
    change(folder, novel_switch=3, norm="layer_norm", model_type="hibiki", tokenizer_name="../t")
    change(folder, "mimi_config.json", frame_rate=12.4)
    with pytest.raises(ConversionError) as caught:
        read_configs(folder)
    message = str(caught.value)
    for part in ("novel_switch", "'norm' is 'layer_norm'", "'hibiki'", "'../t'", "frame_rate"):
        assert part in message
    assert message.startswith(f"{folder}: ") and "\n" not in message


@pytest.mark.parametrize("name", ["config.json", "mimi_config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not valid JSON"), ("[1]", "got a JSON list, expected an object"), ("\xff", "JSON")],
)
def test_a_broken_json_file_is_named(name, content, message, folder):
    (folder / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(ConversionError, match=rf"{name}: .*{message}"):
        read_configs(folder)


def test_a_codec_config_that_is_named_must_be_there(folder):
    (folder / "mimi_config.json").unlink()
    with pytest.raises(ConversionError, match=r"mimi_config\.json: got no such file"):
        read_configs(folder)


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_what_is_no_checkpoint_folder_is_refused(kind, tmp_path):
    path = tmp_path / "x"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.touch()
    with pytest.raises(ConversionError, match=r"not a checkpoint folder: got neither config\.json"):
        read_configs(path)


def test_a_written_config_reads_back(small_lm, tmp_path):
    write_config(tmp_path, small_lm)
    assert read_configs(tmp_path).lm == small_lm
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["moshi_name"] == "model.safetensors" and raw["model_type"] == "moshi"


def test_parts_have_their_configs(tiny_checkpoint):
    found = read_configs(tiny_checkpoint)
    assert isinstance(found.config("moshi"), MoshiConfig)
    assert isinstance(found.config("mimi"), MimiConfig)
