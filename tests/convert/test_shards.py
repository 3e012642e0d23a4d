import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from convert import ConversionError, compare, load_moshi, to_jax
from convert.safetensors_io import FORMATS, TensorInfo
from convert.shards import ShardedTensors, open_weights, write_shards

TENSORS = {
    f"layer.{i}.weight": np.full((4, 4), i, np.float32 if i % 2 else ml_dtypes.bfloat16)
    for i in range(6)
}


@pytest.fixture
def index(tmp_path):
    infos = {key: TensorInfo(t.shape, FORMATS[t.dtype]) for key, t in TENSORS.items()}
    write_shards(tmp_path / "m.safetensors", infos, TENSORS.__getitem__, {"format": "pt"}, 100)
    return tmp_path / "m.safetensors.index.json"


def test_files_stay_below_their_size_and_hold_everything_once(index):
    values = json.loads(index.read_text())
    assert values["metadata"]["total_size"] == 3 * 32 + 3 * 64
    names = sorted(set(values["weight_map"].values()))
    assert names == [f"m-{i:05}-of-00003.safetensors" for i in (1, 2, 3)]
    assert sorted(path.name for path in index.parent.iterdir()) == [*names, index.name]
    with ShardedTensors(index) as file:
        assert set(file.tensors) == set(TENSORS) and file.metadata == {"format": "pt"}
        for key, expected in TENSORS.items():
            assert file.read(key).dtype == expected.dtype
            np.testing.assert_array_equal(file.read(key), expected)
        np.testing.assert_array_equal(file.read("layer.3.weight", (1, 2)), np.full((2, 4), 3))


def change(index, **values):
    index.write_text(json.dumps({**json.loads(index.read_text()), **values}))


def refused(index):
    with pytest.raises(ConversionError) as caught:
        open_weights(index)
    return str(caught.value)


def test_everything_wrong_is_said_at_once(index):
    home = json.loads(index.read_text())["weight_map"]
    home |= {"ghost": home["layer.0.weight"], "far": "m-00009-of-00003.safetensors"}
    home |= {"outside": "../x.safetensors"}
    del home["layer.5.weight"]
    change(index, weight_map=home)
    shard = index.with_name("m-00002-of-00003.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1])
    message = refused(index)
    for part in (
        "missing ghost, expected in m-00001",
        "names m-00009-of-00003.safetensors, which is not there",
        "names '../x.safetensors', expected a file beside the index",
        "m-00002-of-00003.safetensors: got ",
        "not as the index says: layer.5.weight, found in m-00003",
    ):
        assert part in message, (part, message)


def test_a_tensor_in_two_shards_is_refused(index):
    shard = index.with_name("m-00001-of-00003.safetensors")
    save_file({k: TENSORS[k] for k in list(TENSORS)[:3]}, shard)
    assert "not as the index says: layer.2.weight, found in m-00001" in refused(index)


@pytest.mark.parametrize("content", ["{", "{}", '{"weight_map": {"a": 3}}'])
def test_a_broken_index_is_named(content, index):
    index.write_text(content)
    assert str(index) in refused(index)


def test_a_folder_may_hold_shards_in_place_of_its_file(tiny_checkpoint, tiny_weights, tmp_path):
    folder = tmp_path / "sharded"
    shutil.copytree(tiny_checkpoint, folder)
    infos = {key: TensorInfo(t.shape, FORMATS[t.dtype]) for key, t in tiny_weights.items()}
    (folder / "model.safetensors").unlink()
    read = tiny_weights.__getitem__
    write_shards(folder / "model.safetensors", infos, read, None, 400_000)
    assert compare(tiny_checkpoint, folder).differences == []
    to_jax(folder, tmp_path / "jax")
    assert compare(tiny_checkpoint, tmp_path / "jax").differences == []
    assert load_moshi(folder)[0].config == load_moshi(tiny_checkpoint)[0].config
