"""Safetensors files, one tensor at a time: lazy reading, streamed writing, formats kept per tensor.

File layout: huggingface/safetensors, "Format" section of its README.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from convert.ahead import ahead
from convert.errors import ConversionError
from convert.transforms import Shape
from layers_jax.files import atomic_path

# How much may be waiting to be written while the next tensor is made.
AHEAD_BYTES = 64 << 20
# In the order in which the safetensors library lays tensors out in a file.
FLOATS: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
FORMATS = {dtype: name for name, dtype in FLOATS.items()}
# What else a file may hold: scales and integers of quantised weights, tokens.
_DTYPES: dict[str, np.dtype] = {
    **FLOATS,
    **{f"I{8 * n}": np.dtype(f"i{n}") for n in (1, 2, 4, 8)},
    **{f"U{8 * n}": np.dtype(f"u{n}") for n in (1, 2, 4, 8)},
    "F64": np.dtype(np.float64),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """Shape of a stored tensor, and its number format under the name safetensors gives it."""

    shape: Shape
    format: str


@runtime_checkable
class Tensors(Protocol):
    """Tensors under PyTorch names, read one at a time."""

    tensors: dict[str, TensorInfo]

    def read(self, key: str, part: tuple[int, int] = (0, 1)) -> np.ndarray:
        """Tensor `key`, or block i of its n equal row blocks for `part = (i, n)`."""
        ...


class MemoryTensors:
    """Arrays in memory under PyTorch names."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.arrays = arrays
        self.tensors = {
            key: TensorInfo(array.shape, _NAMES.get(array.dtype, str(array.dtype)))
            for key, array in arrays.items()
        }

    def read(self, key: str, part: tuple[int, int] = (0, 1)) -> np.ndarray:
        """Tensor `key`, or block i of its n equal row blocks for `part = (i, n)`."""
        index, count = part
        rows = self.tensors[key].shape[0] // count
        array = self.arrays[key]
        return array if count == 1 else array[index * rows : (index + 1) * rows]


class SafetensorsFile:
    """A safetensors file opened for reading; a context manager.

    Reads are plain reads into memory of their own: a mapped file would count as resident.

    Attributes:
      path: the file.
      tensors: shape and format of each tensor; nothing else is read on opening.
      metadata: the free text entries of its header.

    Raises:
      FileNotFoundError: there is no such file.
      ConversionError: it is not a whole safetensors file.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(
                f"cannot read {path}: got no file there, expected safetensors weights;"
                " check the name in config.json"
            )
        header, self._start = _read_header(self.path)
        self.metadata: dict[str, str] = dict(header.pop("__metadata__", None) or {})
        self.tensors = {
            key: TensorInfo(tuple(entry["shape"]), entry["dtype"]) for key, entry in header.items()
        }
        self._offsets = {key: entry["data_offsets"][0] for key, entry in header.items()}
        self._file = self.path.open("rb", buffering=0)

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, key: str, part: tuple[int, int] = (0, 1)) -> np.ndarray:
        """Tensor `key`, or block i of its n equal row blocks for `part = (i, n)`.

        Raises:
          ConversionError: the format is one that numpy does not have, or the file lost its end.
        """
        (index, count), info = part, self.tensors[key]
        dtype = _DTYPES.get(info.format)
        if dtype is None:
            problem = f"cannot read {key}: got {info.format}, expected one of {', '.join(_DTYPES)}"
            raise ConversionError([problem], subject=str(self.path))
        shape = info.shape if count == 1 else (info.shape[0] // count, *info.shape[1:])
        array = np.empty(shape, dtype)
        view = array.reshape(-1).view(np.uint8).data
        self._file.seek(self._start + self._offsets[key] + index * len(view))
        while view:
            done = self._file.readinto(view)
            if not done:
                problem = f"ends within {key}: the file changed while it was read; fetch it again"
                raise ConversionError([problem], subject=str(self.path))
            view = view[done:]
        return array


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and where data starts. It states how long the file is: a cut one is noticed."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if 8 + length > size:
                raise ValueError(f"header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length), object_pairs_hook=_unique)
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        problem = f"not a safetensors file, or cut short ({error}); fetch it again"
        raise ConversionError([problem], subject=str(path)) from error
    if size != expected:
        problem = f"got {size} bytes, expected {expected} from its header; fetch it again"
        raise ConversionError([problem], subject=str(path))
    try:
        safe_open(path, "numpy")  # the library's own checks: formats, sizes, gaps, overlaps
    except (SafetensorError, OverflowError) as error:
        raise ConversionError([f"not a safetensors file ({error})"], subject=str(path)) from error
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("two entries have the same name")
    return values


def file_order(formats: Mapping[str, str]) -> list[str]:
    """Names in the order in which the library lays tensors of these formats out in a file."""
    rank = list(FLOATS)
    return sorted(formats, key=lambda name: (rank.index(formats[name]), name))


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, TensorInfo],
    read: Callable[[str], np.ndarray],
    metadata: Mapping[str, str] | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Writes a file tensor by tensor, atomically, in the very bytes the safetensors library writes.

    Args:
      path: where the finished file goes.
      tensors: shape and format of each tensor, formats F32, BF16 or F16.
      read: called once a tensor, in file order; its result must have that shape and format.
      metadata: free text entries of the header.
      check: called before the finished file takes its name; what it raises prevents that.
    """
    names = file_order({name: info.format for name, info in tensors.items()})
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        info = tensors[name]
        start, end = end, end + int(np.prod(info.shape)) * FLOATS[info.format].itemsize
        header[name] = {
            "dtype": info.format,
            "shape": list(info.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        made = ((name, read(name)) for name in names)
        for name, tensor in ahead(made, lambda entry: entry[1].nbytes, AHEAD_BYTES):
            info = tensors[name]
            if tensor.shape != info.shape or FORMATS.get(tensor.dtype) != info.format:
                raise ValueError(
                    f"cannot write {name}: got {tensor.dtype}{list(tensor.shape)}, announced "
                    f"{info.format}{list(info.shape)}"
                )
            file.write(np.ascontiguousarray(tensor).view(np.uint8).reshape(-1).data)
        check()
