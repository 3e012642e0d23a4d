"""Tensors out of a `torch.save` file, without PyTorch and without running what the file says.

A pickle is a program. This reader looks at its instructions first and refuses the file unless each
is one that `torch.save` writes for a plain dict of tensors, and then lets it name five things only:
the function that makes a tensor, the storage types, and OrderedDict. That is what PyTorch calls
weights-only loading. Format: torch/serialization.py, the zip form (since PyTorch 1.6).
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from convert.errors import ConversionError

_STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# What protocol 2 needs for dicts, lists, tuples, strings, numbers and the tensors in them.
_OPCODES = frozenset(
    {"PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BINPERSID"}
    | {"EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS"}
    | {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
    | {"BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "BINUNICODE", "SHORT_BINUNICODE"}
    | {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE"}
)
_MAX_PICKLE_BYTES = 1 << 20  # a dict of two tensors takes 300 bytes
_MAX_STORAGE_BYTES = 1 << 30


def read_tensors(data: bytes, *, subject: str) -> dict[str, np.ndarray]:
    """The dict of tensors that `torch.save` wrote.

    Args:
      data: the file.
      subject: what to call it in an error.

    Raises:
      ConversionError: it is another kind of file, is broken, or holds anything but tensors by name.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = _load(archive)
    except ConversionError:
        raise
    except Exception as error:  # a crafted file can break any of these readers in any way
        reason = " ".join(str(error).split()) or type(error).__name__
        _refuse(f"not a torch.save file in its zip form, or broken ({reason})", subject)
    if isinstance(found, str):
        _refuse(found, subject)
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, np.ndarray) for name, value in found.items()
    ):
        _refuse("got something else than a dict of tensors", subject)
    return found


def _refuse(problem: str, subject: str) -> NoReturn:
    advice = "expected tensors by name as torch.save writes them, and nothing else"
    raise ConversionError([f"{problem}; {advice}"], subject=subject)


def _load(archive: zipfile.ZipFile) -> Any:
    """What the pickle builds, or the text of a refusal."""
    (script,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
    folder = script.removesuffix("data.pkl")
    if archive.getinfo(script).file_size > _MAX_PICKLE_BYTES:
        return f"data.pkl is larger than {_MAX_PICKLE_BYTES} bytes"
    order = f"{folder}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        return f"its byte order is {archive.read(order)!r}"
    program = archive.read(script)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if opcode.name not in _OPCODES:
            return f"refused: the pickle uses {opcode.name}, which can run code"
        if opcode.name == "LONG_BINPUT" and (argument or 0) > count:  # it would allocate that much
            return f"refused: the pickle numbers its objects up to {argument}"
    return _Reader(program, archive, folder).load()


class _Reader(pickle.Unpickler):
    """Builds dicts, lists and tensors; any other name in the pickle is refused."""

    def __init__(self, program: bytes, archive: zipfile.ZipFile, folder: str):
        super().__init__(io.BytesIO(program))
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        if (module, name) == ("collections", "OrderedDict"):
            return dict  # the (empty) backward hooks of each tensor
        raise pickle.UnpicklingError(f"refused: the pickle names {module}.{name}")

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, _, count = pid
        member = self.archive.getinfo(f"{self.folder}data/{key}")
        size = count * dtype.itemsize
        if kind != "storage" or member.file_size != size or size > _MAX_STORAGE_BYTES:
            raise pickle.UnpicklingError(f"storage {key} has {member.file_size} bytes, not {size}")
        return np.frombuffer(self.archive.read(member), dtype)


def _tensor(storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_: Any) -> np.ndarray:
    """A view of a storage, copied; bounds are checked because as_strided does not."""
    if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
        raise pickle.UnpicklingError("a tensor has impossible shape, strides or offset")
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.size:
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    if np.prod(shape, dtype=object) > storage.size:
        raise pickle.UnpicklingError("a tensor repeats its storage")
    item = storage.dtype.itemsize
    view = np.lib.stride_tricks.as_strided(
        storage[offset:], shape, [stride * item for stride in strides]
    )
    return np.array(view)
