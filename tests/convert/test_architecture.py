import json

import pytest

from convert.architecture import (
    from_arch_file,
    from_tensors,
    lm_from_config,
    mimi_from_config,
    read_json,
    says_architecture,
    used_codebooks,
)
from convert.safetensors_io import TensorInfo
from helium_jax import MoshiConfig, moshi_7b, personaplex_7b
from mimi_jax import mimi_24khz


def test_the_stub_beside_personaplex_is_no_architecture():
    assert not says_architecture({"model_type": "personaplex", "version": "7b-v1"})
    assert not says_architecture({"moshi_name": "m", "lm_gen_config": {}})
    assert says_architecture({"model_type": "moshi", "dim": 4096})
    assert says_architecture({"novel_switch": 1})  # said, and then refused by name


def test_codebooks_of_one_speaker():
    assert used_codebooks(moshi_7b()) == used_codebooks(personaplex_7b()) == 8


def test_who_generates_both_speakers_has_the_older_ring():
    ours = {**moshi_7b().to_dict(), "dep_q": 16}
    assert lm_from_config(ours) == personaplex_7b()
    assert lm_from_config(moshi_7b().to_dict()).ring == "kyutai"
    assert mimi_from_config(None, personaplex_7b()).transformer.ring == "personaplex"
    assert mimi_from_config(None, moshi_7b()) == mimi_24khz(8)


def test_what_is_recorded_reads_back(published_keys):
    layout = published_keys("personaplex_7b")["released"]
    tensors = {name: TensorInfo(tuple(shape), dtype) for name, (dtype, shape) in layout.items()}
    found = from_tensors(tensors)
    again = from_arch_file(json.loads(json.dumps(found.recorded)))
    assert (again.lm, again.mimi) == (found.lm, found.mimi)
    assert found.lm == personaplex_7b()


def test_an_arch_file_can_choose_the_codebooks():
    values = {"lm": MoshiConfig().to_dict(), "num_codebooks_mimi": 4}
    assert from_arch_file(values).mimi == mimi_24khz(4)


def test_only_a_json_object_is_read(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dim", 0), ("num_layers", 1.5), ("num_heads", True), ("n_q", -1), ("hidden_scale", "x"),
        ("max_period", 0), ("delays", 3), ("delays", ["a"]), ("card", None), ("kv_repeat", []),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_named(key, value):
    with pytest.raises(ValueError, match=f"'{key}' is .*, expected"):
        lm_from_config({**moshi_7b().to_dict(), key: value})
