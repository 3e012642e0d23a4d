"""Folder to folder: a release to orbax checkpoints and back, whole or not at all."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from convert.checkpoint import CONVERSION_NAME, Checkpoint, Part, read_configs, write_json
from convert.errors import ConversionError
from convert.files import CONFIG_NAME
from convert.orbax_io import save_leaves
from convert.release import check_hashes
from convert.sources import Source, abstract_params, open_source
from convert.voices import convert_voices
from layers_jax import atomic_path

# `progress(what, count)` starts a stretch of `count` tensors; what it returns is called after each.
Tick = Callable[[], None]
Progress = Callable[[str, int], Tick]


def silent(what: str, count: int) -> Tick:
    """Progress that nobody sees."""
    del what, count
    return lambda: None


def to_jax(
    source: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    arch: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> None:
    """Converts a release to orbax checkpoints, the JSON files and the tokenizer beside them.

    The `.pt` files of a voice archive become safetensors, once.

    Raises:
      ConversionError: the source cannot be used, or is no release.
      FileNotFoundError: a file that its config names is not there.
      FileExistsError: `directory` is in use.
    """
    origin = read_configs(source, arch=arch)
    if origin.is_jax:
        problem = "got a converted folder, expected a release; it can be used as it is"
        raise ConversionError([problem], subject=str(source))
    check_hashes(origin.directory, origin.files)
    with new_folder(directory) as folder:
        entries: dict[str, Any] = {
            part: _save_part(origin, part, folder, progress) for part in origin.parts
        }
        _copy_side_files(origin, folder)
        convert_voices(origin.directory, folder)
        if origin.recorded is not None:
            entries["arch"] = dict(origin.recorded)
        (folder / CONVERSION_NAME).write_text(json.dumps(entries) + "\n")


def _save_part(origin: Checkpoint, part: Part, folder: Path, progress: Progress) -> dict[str, Any]:
    with open_source(origin, part, abstract_params(origin.config(part))) as weights:
        tick = progress(f"reading {part}", weights.num_leaves)

        def leaves() -> Iterator[tuple[Any, np.ndarray]]:
            for entry in weights.leaves(None):
                yield entry
                tick()

        save_leaves(folder / part, leaves())
        # What our leaves do not tell, so that the file can be given back exactly.
        return {"formats": weights.formats, "metadata": dict(weights.metadata)}


def write_release(
    origin: Checkpoint,
    directory: str | os.PathLike[str],
    weights: Source,
    *,
    progress: Progress = silent,
) -> None:
    """Writes a release: `weights` as the language model, everything else as `origin` has it.

    Raises:
      ConversionError: the codec of `origin` cannot be used.
      FileNotFoundError: a file that its config names is not there.
      FileExistsError: `directory` is in use.
    """
    with new_folder(directory) as folder:
        fill_release(origin, folder, weights, progress=progress)


def fill_release(
    origin: Checkpoint,
    folder: Path,
    weights: Source,
    *,
    max_bytes: int | None = None,
    progress: Progress = silent,
) -> None:
    """`write_release` into a folder that is there; weights in several files if `max_bytes`."""
    _write(weights, folder / origin.file_name("moshi"), progress, max_bytes)
    if "mimi" in origin.parts:
        _write_codec(origin, folder / origin.file_name("mimi"), progress)
    _copy_side_files(origin, folder)


@contextmanager
def new_folder(directory: str | os.PathLike[str]) -> Generator[Path, None, None]:
    """A folder to fill, which takes its name when the block succeeds.

    What a killed process left of an earlier attempt at the same folder is removed first.

    Raises:
      FileExistsError: something that is not an empty folder has that name, or another process is
        filling it.
    """
    target = Path(directory)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(
            f"cannot write {target}: got something there, expected a new or an empty folder;"
            " remove it or choose another name"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with _only_writer(target), atomic_path(target) as folder:
        folder.mkdir()
        yield folder


@contextmanager
def _only_writer(target: Path) -> Generator[None, None, None]:
    """Holds a lock that the system releases when its process dies; then leftovers are nobody's."""
    path = target.with_name(f".{target.name}.lock")
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(
                f"cannot write {target}: another process is writing it; wait for that"
            ) from None
        try:
            for leftover in target.parent.glob(f".*.{glob.escape(target.name)}"):
                if re.fullmatch(r"\.[0-9a-f]{8}", leftover.name.removesuffix(f".{target.name}")):
                    shutil.rmtree(leftover)
            yield
        finally:
            path.unlink(missing_ok=True)


def _write(weights: Source, path: Path, progress: Progress, max_bytes: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tick = progress(f"writing {path.name}", len(weights.tensors))
    weights.write(path, tick, max_bytes=max_bytes)


def _write_codec(origin: Checkpoint, path: Path, progress: Progress) -> None:
    """The file itself where there is one of its own in the released layout."""
    source = origin.weights("mimi")
    with open_source(origin, "mimi", abstract_params(origin.mimi)) as codec:
        if source.suffix != ".safetensors" or codec.foreign:
            _write(codec, path, progress)
            return
    _copy(source, path)


def _copy_side_files(origin: Checkpoint, folder: Path) -> None:
    if origin.rewritten is not None:
        write_json(folder / CONFIG_NAME, origin.rewritten)
    for name, path in origin.side_files.items():
        _copy(path, folder / name)


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise FileNotFoundError(
            f"cannot read {source}: got no file there, expected it from config.json; fetch it"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
