import collections
import io
import pickle
import zipfile
from typing import ClassVar

import ml_dtypes
import numpy as np
import pytest

from convert import ConversionError
from convert.torch_pickle import read_tensors

# What PyTorch's pickler writes, without PyTorch: names that stand for its functions and types.
GLOBALS = {"rebuild": ("torch._utils", "_rebuild_tensor_v2"), "system": ("os", "system")}


class Global:
    """Pickled as the name of something, as functions and classes are."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Storage:
    def __init__(self, kind, key, count):
        self.pid = ("storage", Global("torch", kind), key, "cpu", count)


class Tensor:
    def __init__(self, storage, offset, shape, strides):
        hooks = collections.OrderedDict()
        self.arguments = (storage, offset, shape, strides, False, hooks)


class Writer(pickle._Pickler):
    """The pure Python pickler, so that a class can be written under a foreign name."""

    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Storage) else None

    def save_foreign(self, obj):
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())

    def save_tensor(self, obj):
        self.save_foreign(Global(*GLOBALS["rebuild"]))
        self.save(obj.arguments)
        self.write(pickle.REDUCE)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, Global: save_foreign, Tensor: save_tensor}


def program(content):
    buffer = io.BytesIO()
    Writer(buffer, protocol=2).dump(content)
    return buffer.getvalue()


def saved(content, members=(), *, script=None, order=b"little"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("voice/data.pkl", program(content) if script is None else script)
        archive.writestr("voice/byteorder", order)
        for key, data in members:
            archive.writestr(f"voice/data/{key}", data)
    return buffer.getvalue()


VALUES = np.arange(12, dtype=np.float32)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("FloatStorage", np.float32), ("BFloat16Storage", ml_dtypes.bfloat16), ("LongStorage", "i8")],
)
def test_tensors_come_out_with_their_shape_and_format(kind, dtype):
    values = VALUES.astype(dtype)
    tensors = {
        "rows": Tensor(Storage(kind, "0", 12), 0, (3, 4), (4, 1)),
        "columns": Tensor(Storage(kind, "0", 12), 1, (2, 3), (1, 4)),  # a view of the same storage
    }
    found = read_tensors(saved(tensors, [("0", values.tobytes())]), subject="x")
    assert found["rows"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found["rows"], values.reshape(3, 4))
    np.testing.assert_array_equal(found["columns"], [[1, 5, 9], [2, 6, 10]])


def test_code_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    with pytest.raises(ConversionError, match=r"names (_?io|__builtin__|builtins)\.open"):
        read_tensors(saved({"x": Evil()}), subject="x")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a torch.save file"),
        (b"\x80\x02}q\x00.", "not a torch.save file"),  # the form before 1.6: a bare pickle
        (saved({"x": 3}), "something else than a dict of tensors"),
        (saved([1]), "something else than a dict of tensors"),
        (saved({}, order=b"big"), "byte order"),
        (saved(None, script=b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00lsR."), "names os.system"),
        (saved(None, script=b"\x80\x04\x8c\x02os\x8c\x06system\x93."), "uses STACK_GLOBAL"),
        (saved(None, script=b"\x80\x02}r\xff\xff\xff\x7f."), "numbers its objects"),
        (saved(None, script=b"\x80\x02}"), "broken"),
        (saved({"x": Tensor(Storage("FloatStorage", "0", 9), 0, (3,), (1,))}), "broken"),
    ],
)
def test_anything_else_is_refused_with_the_reason(data, message):
    with pytest.raises(ConversionError, match=message):
        read_tensors(data, subject="x")


@pytest.mark.parametrize(
    ("count", "offset", "shape", "strides", "message"),
    [
        (11, 0, (3, 4), (4, 1), "storage 0 has 48 bytes"),
        (12, 1, (3, 4), (4, 1), "beyond its storage"),
        (12, 0, (3, 4), (1, 4096), "beyond its storage"),
        (12, 0, (3,), (-1,), "impossible"),
        (12, -4, (3,), (1,), "impossible"),
        (12, 0, (3, 4), (1,), "impossible"),
        (12, 0, (1 << 40, 4), (0, 1), "repeats its storage"),
    ],
)
def test_no_tensor_leaves_its_storage(count, offset, shape, strides, message):
    tensor = Tensor(Storage("FloatStorage", "0", count), offset, shape, strides)
    with pytest.raises(ConversionError, match=message):
        read_tensors(saved({"x": tensor}, [("0", VALUES.tobytes())]), subject="x")


@pytest.mark.parity
def test_a_file_of_torch_itself(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {
        "embeddings": torch.randn(5, 1, 1, 8).bfloat16(),
        "cache": torch.arange(68).reshape(1, 17, 4),
        "strided": torch.arange(12.0).reshape(3, 4).T[1:],
    }
    torch.save(tensors, tmp_path / "x.pt")
    found = read_tensors((tmp_path / "x.pt").read_bytes(), subject="x")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name].astype(np.float64), tensor.double().numpy())
