"""Weights in several safetensors files with an index, as the hub's tools split large ones.

Layout: huggingface_hub, `save_torch_state_dict` and its `model.safetensors.index.json`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from convert.architecture import read_json
from convert.errors import ConversionError, describe
from convert.foreign import refuse_file
from convert.safetensors_io import FLOATS, SafetensorsFile, TensorInfo, write_safetensors
from layers_jax.files import atomic_path

INDEX_SUFFIX = ".index.json"


class ShardedTensors:
    """The tensors of all files that an index names, opened for reading; a context manager.

    Attributes:
      path: the index.
      tensors: shape and format of each tensor.
      metadata: the free text entries of the first file's header.

    Raises:
      ConversionError: a file is missing or broken, or the files do not hold what the index says.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        try:
            home = read_json(self.path).get("weight_map")
            if not isinstance(home, dict) or not all(isinstance(n, str) for n in home.values()):
                raise ValueError('got no "weight_map", expected tensor names and their files')
        except ValueError as error:
            raise ConversionError([str(error)], subject=str(path)) from error
        self._home: dict[str, str] = home
        self._files: dict[str, SafetensorsFile] = {}
        with ExitStack() as stack:
            problems = self._open(stack)
            if problems:
                raise ConversionError(problems, subject=str(path))
            self._stack = stack.pop_all()
        self.tensors = {key: self._files[name].tensors[key] for key, name in home.items()}
        self.metadata = next((file.metadata for file in self._files.values()), {})

    def _open(self, stack: ExitStack) -> list[str]:
        problems = []
        for name in sorted(set(self._home.values())):
            if Path(name).name != name:
                problems.append(f"names {name!r}, expected a file beside the index")
                continue
            try:
                file = SafetensorsFile(self.path.with_name(name))
            except FileNotFoundError:
                problems.append(f"names {name}, which is not there; fetch it")
            except ConversionError as error:
                problems += [f"{name}: {problem}" for problem in error.problems]
            else:
                self._files[name] = stack.enter_context(file)
        absent, twice = [], []
        for key, name in self._home.items():
            if name in self._files and key not in self._files[name].tensors:
                absent.append((key, f", expected in {name}"))
        for name, file in self._files.items():
            found = (key for key in file.tensors if self._home.get(key) != name)
            twice += [(key, f", found in {name}") for key in found]
        return [*problems, *describe("missing", absent), *describe("not as the index says:", twice)]

    def __enter__(self) -> ShardedTensors:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def read(self, key: str, part: tuple[int, int] = (0, 1)) -> np.ndarray:
        """Tensor `key`, or block i of its n equal row blocks for `part = (i, n)`."""
        return self._files[self._home[key]].read(key, part)


def open_weights(path: str | os.PathLike[str]) -> SafetensorsFile | ShardedTensors:
    """Opens a safetensors file, or all files of an index.

    Raises:
      FileNotFoundError: there is nothing.
      ConversionError: what is there is broken, or something else.
    """
    if str(path).endswith(INDEX_SUFFIX):
        return ShardedTensors(path)
    refuse_file(Path(path))
    return SafetensorsFile(path)


def write_shards(
    path: Path,
    tensors: Mapping[str, TensorInfo],
    read: Callable[[str], np.ndarray],
    metadata: Mapping[str, str] | None,
    max_bytes: int,
) -> None:
    """Writes `NAME-00001-of-0000N.safetensors` and their index in place of `NAME.safetensors`.

    Args:
      path: the one file that these replace.
      tensors: shape and format of each tensor.
      read: called once a tensor; its result must have that shape and format.
      metadata: free text entries of each header.
      max_bytes: the largest file to write; a tensor that is larger gets a file of its own.
    """
    shards: list[dict[str, TensorInfo]] = []
    total, room = 0, 0
    for key in sorted(tensors):
        info = tensors[key]
        size = int(np.prod(info.shape)) * FLOATS[info.format].itemsize
        if size > room:
            shards.append({})
            room = max_bytes
        shards[-1][key] = info
        room, total = room - size, total + size
    home = {}
    for number, shard in enumerate(shards, 1):
        name = f"{path.stem}-{number:05}-of-{len(shards):05}{path.suffix}"
        write_safetensors(path.with_name(name), shard, read, metadata)
        home.update(dict.fromkeys(shard, name))
    index = {"metadata": {"total_size": total}, "weight_map": home}
    with atomic_path(path.with_name(path.name + INDEX_SUFFIX)) as temporary:
        temporary.write_text(json.dumps(index, indent=2) + "\n")
