import json
import math
import shutil
from pathlib import Path

import pytest

from convert import ConversionError, read_configs
from convert.checkpoint import write_config
from convert.files import DEFAULT_NAMES
from helium_jax import MoshiConfig, as_personaplex, moshi_7b, personaplex_7b
from mimi_jax import MimiConfig

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
STUB = GOLDEN / "checkpoint_personaplex_tiny.hub_stub_config.json"


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
    assert list(found.side_files) == ["config.json", "mimi_config.json", "tokenizer_spm_tiny.model"]


def header_only(path, shapes):
    """A safetensors file of full size that takes no room: its values are a hole."""
    end, header = 0, {}
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.mark.parametrize("stub", [False, True])
@pytest.mark.parametrize(
    ("keys", "expected"), [("moshi_7b", moshi_7b()), ("personaplex_7b", personaplex_7b())]
)
def test_without_shapes_the_names_of_the_tensors_tell_the_release(
    keys, expected, stub, published_keys, tmp_path
):
    layout = published_keys(keys)["released"]
    shapes = {name: shape for name, (_, shape) in layout.items() if not name.startswith("t")}
    header_only(tmp_path / "model.safetensors", shapes)
    if stub:  # what NVIDIA's repository has: a name and no shapes
        shutil.copy(STUB, tmp_path / "config.json")
    found = read_configs(tmp_path)
    assert found.lm == expected
    assert found.mimi.num_codebooks == 8
    assert found.mimi.transformer.ring == expected.ring
    assert dict(found.names) == DEFAULT_NAMES
    assert found.lm_gen_config == {}


def test_a_small_model_without_config_needs_its_shapes_said(personaplex_checkpoint):
    folder, arch = personaplex_checkpoint
    with pytest.raises(ConversionError, match=r"width \[32\] is not .*4096.*--arch FILE.json"):
        read_configs(folder)
    found = read_configs(folder, arch=arch)
    values = json.loads(arch.read_text())
    assert found.lm == as_personaplex(MoshiConfig.from_dict(values["lm"]))
    assert found.mimi == MimiConfig.from_dict(values["mimi"], ring="personaplex")
    assert list(found.side_files) == ["voices.tgz", "tokenizer_spm_32k_3.model"]


def test_weights_of_no_family_are_refused(tmp_path):
    header_only(tmp_path / "model.safetensors", {"depformer_in.0.weight": [2, 2]})
    with pytest.raises(ConversionError, match=r"1 depth steps are neither Moshi"):
        read_configs(tmp_path)


def test_an_arch_file_is_for_folders_that_say_nothing(tiny_checkpoint, personaplex_checkpoint):
    with pytest.raises(ConversionError, match=r"says what the model looks like; leave"):
        read_configs(tiny_checkpoint, arch=personaplex_checkpoint[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "JSON list"),
        ("{}", 'no object "lm"'),
        ('{"lm": {}, "size": 7}', "unknown keys size"),
        ('{"lm": {"dim": 4}}', "'n_q' is missing"),
    ],
)
def test_a_wrong_arch_file_is_named(content, message, personaplex_checkpoint, tmp_path):
    (tmp_path / "arch.json").write_text(content)
    with pytest.raises(ConversionError, match=rf"arch\.json: .*{message}"):
        read_configs(personaplex_checkpoint[0], arch=tmp_path / "arch.json")


def test_the_codec_uses_as_many_codebooks_as_either_speaker_has(folder):
    change(folder, dep_q=4)
    assert read_configs(folder).mimi.num_codebooks == 12


@pytest.mark.parametrize("name", ["https://kyutai.org/x", "../x", "/etc/x", "", 7])
def test_files_outside_the_folder_are_refused(name, folder):
    change(folder, mimi_name=name)
    with pytest.raises(ConversionError, match=r"mimi_name is .*, expected a file inside"):
        read_configs(folder)


def test_everything_wrong_is_said_at_once(folder):
    change(folder, novel_switch=3, norm="layer_norm", model_type="tts", tokenizer_name="../t")
    change(folder, "mimi_config.json", frame_rate=12.4)
    with pytest.raises(ConversionError) as caught:
        read_configs(folder)
    message = str(caught.value)
    for part in ("novel_switch", "'norm' is 'layer_norm'", "'tts'", "'../t'", "frame_rate"):
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
