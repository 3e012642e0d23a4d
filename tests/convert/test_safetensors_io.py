import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert.errors import ConversionError
from convert.safetensors_io import (
    FORMATS,
    MemoryTensors,
    SafetensorsFile,
    TensorInfo,
    write_safetensors,
)

RNG = np.random.default_rng(0)
TENSORS = {
    "b.half": RNG.normal(size=(3, 5)).astype(np.float16),
    "a.brain": RNG.normal(size=(4, 2)).astype(ml_dtypes.bfloat16),
    "c.single": RNG.normal(size=(2, 2, 2)).astype(np.float32),
    "a.single": RNG.normal(size=7).astype(np.float32),
    "ä.empty": np.zeros((0, 3), ml_dtypes.bfloat16),
}


def write(path, tensors=TENSORS, metadata=None):
    infos = {key: TensorInfo(t.shape, FORMATS[t.dtype]) for key, t in tensors.items()}
    write_safetensors(path, infos, tensors.__getitem__, metadata)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_the_bytes_are_those_of_the_library(metadata, tmp_path):
    write(tmp_path / "ours", metadata=metadata)
    save_file(TENSORS, tmp_path / "theirs", metadata)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_the_bytes_are_those_of_a_published_file(tiny_checkpoint, tmp_path):
    for name in ("model.safetensors", "tokenizer-tiny-mimi.safetensors"):
        write(tmp_path / name, load_file(tiny_checkpoint / name))
        assert (tmp_path / name).read_bytes() == (tiny_checkpoint / name).read_bytes()


def test_reading_gives_shapes_formats_and_row_blocks(tmp_path):
    path = tmp_path / "x.safetensors"
    write(path, metadata={"note": "kept"})
    with SafetensorsFile(path) as file:
        assert file.metadata == {"note": "kept"}
        assert file.tensors["a.brain"] == TensorInfo((4, 2), "BF16")
        memory = MemoryTensors(TENSORS)
        assert file.tensors == memory.tensors
        for source in (file, memory):
            np.testing.assert_array_equal(source.read("b.half"), TENSORS["b.half"])
            np.testing.assert_array_equal(source.read("a.brain", (1, 2)), TENSORS["a.brain"][2:])


@pytest.mark.parametrize("kept", [0, 5, 40, 400, -1])
def test_a_file_cut_short_says_so(kept, tmp_path):
    path = tmp_path / "x.safetensors"
    write(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ConversionError, match="fetch it again") as caught:
        SafetensorsFile(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_lost_its_end_names_both_sizes(tmp_path):
    path = tmp_path / "x.safetensors"
    write(path)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ConversionError, match=f"got {size - 3} bytes, expected {size}"):
        SafetensorsFile(path)


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 a pickle of PyTorch is a zip archive",
        b"\x02" + bytes(7) + b"{}" + b"trailing",
        b"\x04" + bytes(7) + b"[12]",
        b"\x10" + bytes(7) + b'{"a": {"b": 12}}',
    ],
)
def test_another_kind_of_file_is_refused(content, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConversionError):
        SafetensorsFile(path)


def test_a_header_that_overlaps_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    write(path, {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)})
    path.write_bytes(path.read_bytes().replace(b"[8,16]", b"[9,16]"))
    with pytest.raises(ConversionError, match="not a safetensors file"):
        SafetensorsFile(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors: got no file there"):
        SafetensorsFile(tmp_path / "gone.safetensors")


def test_a_tensor_unlike_its_announcement_leaves_no_file(tmp_path):
    info = {"a": TensorInfo((2,), "F32")}
    for wrong in (np.zeros(3, np.float32), np.zeros(2, np.float16), np.zeros(2, np.int32)):
        with pytest.raises(ValueError, match="cannot write a: got"):
            write_safetensors(tmp_path / "x", info, {"a": wrong}.__getitem__)
    assert list(tmp_path.iterdir()) == []
