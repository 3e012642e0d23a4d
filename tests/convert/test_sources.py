import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from convert import read_configs
from convert.safetensors_io import SafetensorsFile
from convert.sources import abstract_mimi, abstract_params, memory_source, open_source

BF16 = np.dtype(ml_dtypes.bfloat16)


def test_recast_rounds_to_nearest_even(small_mimi, random_params, tmp_path):
    params = random_params(small_mimi, dtypes=[np.dtype(np.float32)])
    # Halfway between two bf16 neighbours, and just above: to the even one, and up.
    params["encoder"]["input"]["bias"][:3] = [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20]
    source = memory_source(small_mimi, params, abstract_params(small_mimi), subject="test")
    assert set(source.formats.values()) == {"F32"}
    narrow = source.recast(dict.fromkeys(source.tensors, "BF16"))
    bias = narrow.read("encoder.model.0.conv.conv.bias")
    assert bias.dtype == BF16
    np.testing.assert_array_equal(bias[:3].astype(np.float32), [1, 1 + 2 * 2**-7, 1 + 2**-7])
    narrow.write(tmp_path / "x.safetensors")
    assert {value.dtype for value in load_file(tmp_path / "x.safetensors").values()} == {BF16}


def test_a_file_is_seen_under_its_released_names(tiny_checkpoint):
    checkpoint = read_configs(tiny_checkpoint)
    with (
        SafetensorsFile(checkpoint.weights("mimi")) as file,
        open_source(checkpoint, "mimi", abstract_params(checkpoint.mimi)) as source,
    ):
        assert source.tensors == file.tensors
        for key in file.tensors:
            np.testing.assert_array_equal(source.read(key), file.read(key))


def test_modules_are_made_anew(small_mimi):
    first, second = abstract_mimi(small_mimi), abstract_mimi(small_mimi)
    assert first is not second and first.encoder is not second.encoder
    assert first.config == second.config == small_mimi


@pytest.mark.parametrize("part", ["moshi", "mimi"])
def test_leaves_are_counted(part, tiny_checkpoint):
    checkpoint = read_configs(tiny_checkpoint)
    shapes = abstract_params(checkpoint.config(part))
    seen = []
    with open_source(checkpoint, part, shapes) as source:
        source.tree(None, seen.append)
        assert len(seen) == source.num_leaves
