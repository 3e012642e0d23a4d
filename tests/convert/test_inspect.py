import json
import math

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert import inspect, to_jax
from convert.__main__ import main
from convert.inspect import family
from helium_jax import MoshiConfig, helium_2b, moshi_7b, personaplex_7b


def test_the_counts_are_those_of_the_files(tiny_checkpoint, tmp_path):
    found = inspect(tiny_checkpoint)
    weights = load_file(tiny_checkpoint / "model.safetensors")
    codec = load_file(tiny_checkpoint / "tokenizer-tiny-mimi.safetensors")
    assert found.parameters["mimi"] == sum(value.size for value in codec.values())
    lm = {name: count for name, count in found.parameters.items() if name != "mimi"}
    assert sum(lm.values()) == sum(value.size for value in weights.values())
    assert lm["text_emb"] == weights["text_emb.weight"].size
    assert found.formats == {"F32": len(codec), "BF16": len(weights)}
    assert found.num_bytes == sum(v.nbytes for v in [*weights.values(), *codec.values()])
    assert found.family == "Moshi" and found.unusual == []
    to_jax(tiny_checkpoint, tmp_path / "jax")
    assert inspect(tmp_path / "jax") == found


def test_personaplex_shows_its_voices(personaplex_checkpoint, capsys):
    folder, arch = personaplex_checkpoint
    assert main(["inspect", str(folder), "--arch", str(arch)]) == 0
    text = capsys.readouterr().out
    assert "family   PersonaPlex\n" in text and "voices   TINY0" in text
    assert "unusual  no config.json says its shapes" in text


@pytest.mark.parametrize(
    ("keys", "name", "total"),
    [
        ("moshi_7b", "Moshi 7B", 7_687_729_152),
        ("personaplex_7b", "PersonaPlex 7B", 8_371_408_896),
        ("hibiki_2b", "Moshi", 3_729_805_312),
        ("stt_2.6b", "speech to text", 2_617_118_720),
        ("stt_1b", "speech to text", 989_204_480),
    ],
)
@pytest.mark.slow
def test_real_files_are_counted_from_their_headers(keys, name, total, published_keys, tmp_path):
    """Sparse files of full size: the numbers are those of the released models."""
    published, end, header = published_keys(keys), 0, {}
    for key, (form, shape) in published["released"].items():
        start, end = end, end + math.prod(shape) * (2 if form == "BF16" else 4)
        header[key] = {"dtype": form, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    if keys != "personaplex_7b":
        (tmp_path / "config.json").write_text(json.dumps(published["config"]))
    found = inspect(tmp_path / "model.safetensors")
    assert found.family == name
    assert sum(found.parameters.values()) == total
    assert not any("cannot be converted" in text for text in found.unusual)


def test_what_cannot_be_converted_is_said(tiny_weights, checkpoint_with):
    tensors = {**tiny_weights, "stranger": np.ones(2, np.float32)}
    del tensors["text_emb.weight"]
    found = inspect(checkpoint_with(tensors))
    said = " ".join(found.unusual)
    assert "unexpected stranger" in said and "missing text_emb.weight" in said


def test_families_have_names():
    assert family(moshi_7b()) == "Moshi 7B" and family(personaplex_7b()) == "PersonaPlex 7B"
    assert family(helium_2b()) == "Helium text model"
    assert family(MoshiConfig(dep_q=0)) == "speech to text"


def test_a_merged_fine_tuning_is_unusual(tiny_checkpoint, tmp_path):
    save_file(
        load_file(tiny_checkpoint / "model.safetensors"), tmp_path / "consolidated.safetensors"
    )
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    kept = {key: value for key, value in config.items() if not key.endswith("_name")}
    (tmp_path / "config.json").write_text(json.dumps(kept))
    said = " ".join(inspect(tmp_path).unusual)
    assert "moshi-finetune" in said and "no codec" in said
