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
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from convert.errors import ConversionError
from convert.transforms import Shape
from layers_jax.files import atomic_path

# In the order in which the safetensors library lays tensors out in a file.
FLOATS: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
FORMATS = {dtype: name for name, dtype in FLOATS.items()}


@dataclass(frozen=True)
class TensorInfo:
    """Shape of a stored tensor, and its number format under the name safetensors gives it."""

    shape: Shape
    format: str


class MemoryTensors:
    """Arrays in memory under PyTorch names."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.arrays = arrays
        self.tensors = {
            key: TensorInfo(array.shape, FORMATS.get(array.dtype, str(array.dtype)))
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
        _check_size(self.path)
        try:
            self._file: Any = safe_open(self.path, "numpy")
        except SafetensorError as error:
            raise ConversionError(
                [f"not a safetensors file ({error})"], subject=str(path)
            ) from error
        self.tensors: dict[str, TensorInfo] = {}
        for key in self._file.keys():  # noqa: SIM118  (not a mapping)
            stored = self._file.get_slice(key)
            self.tensors[key] = TensorInfo(tuple(stored.get_shape()), stored.get_dtype())
        self.metadata: dict[str, str] = dict(self._file.metadata() or {})

    def __enter__(self) -> SafetensorsFile:
        self._file.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def read(self, key: str, part: tuple[int, int] = (0, 1)) -> np.ndarray:
        """Tensor `key`, or block i of its n equal row blocks for `part = (i, n)`."""
        index, count = part
        if count == 1:
            return self._file.get_tensor(key)
        rows = self.tensors[key].shape[0] // count
        return self._file.get_slice(key)[index * rows : (index + 1) * rows]


Tensors = SafetensorsFile | MemoryTensors


def _check_size(path: Path) -> None:
    """The header states how long the file is: say so when a download or a disk was cut short."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if 8 + length > size:
                raise ValueError(f"header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        problem = f"not a safetensors file, or cut short ({error}); fetch it again"
        raise ConversionError([problem], subject=str(path)) from error
    if size != expected:
        problem = f"got {size} bytes, expected {expected} from its header; fetch it again"
        raise ConversionError([problem], subject=str(path))


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, TensorInfo],
    read: Callable[[str], np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a file tensor by tensor, atomically, in the very bytes the safetensors library writes.

    Args:
      path: where the finished file goes.
      tensors: shape and format of each tensor, formats F32, BF16 or F16.
      read: called once a tensor, in file order; its result must have that shape and format.
      metadata: free text entries of the header.
    """
    rank = list(FLOATS)
    names = sorted(tensors, key=lambda name: (rank.index(tensors[name].format), name))
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
        for name in names:
            tensor, info = read(name), tensors[name]
            if tensor.shape != info.shape or FORMATS.get(tensor.dtype) != info.format:
                raise ValueError(
                    f"cannot write {name}: got {tensor.dtype}{list(tensor.shape)}, announced "
                    f"{info.format}{list(info.shape)}"
                )
            file.write(np.ascontiguousarray(tensor).view(np.uint8).reshape(-1).data)
