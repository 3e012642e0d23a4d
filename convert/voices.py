"""PersonaPlex voices: `voices.tgz` of `.pt` files in, safetensors out, no pickle at run time.

A voice is what the model had been fed when its recording ended: the input embedding of every frame,
and the tokens that the delays still hold back. Source: `save_voice_prompt_embeddings` of the
PersonaPlex fork (moshi/models/lm.py, released under MIT).
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from safetensors.numpy import save_file

from convert.errors import ConversionError
from convert.hub import local
from convert.safetensors_io import FLOATS, SafetensorsFile
from convert.torch_pickle import read_tensors
from helium_jax import Voice

ARCHIVE = "voices.tgz"
FOLDER = "voices"
_MAX_MEMBER_BYTES = 64 << 20  # a released voice has under 1 MB


def voice_names(directory: str | os.PathLike[str]) -> list[str]:
    """Names of the voices of a checkpoint folder, sorted; empty if it has none.

    Raises:
      ConversionError: its archive is broken or could write outside a folder.
    """
    return sorted(_find(local(directory)))


def load_voice(directory: str | os.PathLike[str], name: str) -> Voice:
    """A voice of a checkpoint folder: of a release's archive, or of its converted form.

    Raises:
      ConversionError: there is no such voice, or its file is not what a voice is.
    """
    folder = local(directory)
    found = _find(folder)
    if name not in found:
        there = ", ".join(sorted(found)) or "none"
        problem = f"no voice {name!r}, expected one of: {there}"
        raise ConversionError([problem], subject=str(folder))
    return found[name]()


def convert_voices(source: Path, target: Path) -> list[str]:
    """Writes `voices/NAME.safetensors` in `target` for each voice of `source`; returns names."""
    found = _find(source)
    for name, read in found.items():
        voice = read()
        (target / FOLDER).mkdir(exist_ok=True)
        arrays = {"embeddings": voice.embeddings, "cache": voice.cache}
        save_file(arrays, target / FOLDER / f"{name}.safetensors")
    return sorted(found)


class _Member:
    """A voice that is read when it is called."""

    def __init__(self, data: bytes | Path, subject: str):
        self.data, self.subject = data, subject

    def __call__(self) -> Voice:
        if isinstance(self.data, Path) and self.data.suffix == ".safetensors":
            with SafetensorsFile(self.data) as file:
                arrays = {key: file.read(key) for key in file.tensors}
        else:
            data = self.data.read_bytes() if isinstance(self.data, Path) else self.data
            arrays = read_tensors(data, subject=self.subject)
        return _checked(arrays, self.subject)


def _find(folder: Path) -> dict[str, _Member]:
    """Converted voices before an unpacked archive, that before the archive."""
    for pattern in ("*.safetensors", "*.pt"):
        files = sorted((folder / FOLDER).glob(pattern))
        if files:
            return {path.stem: _Member(path, str(path)) for path in files}
    archive = folder / ARCHIVE
    return _read_archive(archive) if archive.is_file() else {}


def _read_archive(path: Path) -> dict[str, _Member]:
    """The voices of an archive; nothing is unpacked to disk."""
    voices: dict[str, _Member] = {}
    problems = []
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    problems.append(f"refused: {member.name!r} leads out of its folder")
                elif member.issym() or member.islnk() or member.isdev():
                    problems.append(f"refused: {member.name!r} is a link or a device")
                elif member.isfile() and name.suffix == ".pt" and not name.name.startswith("._"):
                    if member.size > _MAX_MEMBER_BYTES:
                        problems.append(f"refused: {member.name!r} has {member.size} bytes")
                        continue
                    if name.stem in voices:
                        problems.append(f"two files for voice {name.stem!r}")
                    file = archive.extractfile(member)
                    data = file.read() if file else b""
                    voices[name.stem] = _Member(data, f"{path}: {member.name}")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        problem = f"not a tar archive, or cut short ({error}); fetch it again"
        raise ConversionError([problem], subject=str(path)) from error
    if problems:
        raise ConversionError(problems, subject=str(path))
    return voices


def _checked(arrays: Mapping[str, np.ndarray], subject: str) -> Voice:
    problems = []
    if set(arrays) != {"embeddings", "cache"}:
        problems.append(f"got {', '.join(sorted(arrays)) or 'nothing'}")
        problems.append("expected the tensors embeddings and cache")
        raise ConversionError(problems, subject=subject)
    embeddings, cache = arrays["embeddings"], arrays["cache"]
    # [N, 1, 1, D] and [1, K, T] as the fork saves them, [N, D] and [K, T] as we do.
    if embeddings.ndim == 4 and embeddings.shape[1:3] == (1, 1):
        embeddings = embeddings[:, 0, 0]
    if cache.ndim == 3 and cache.shape[0] == 1:
        cache = cache[0]
    if embeddings.ndim != 2 or embeddings.dtype not in FLOATS.values():
        got = f"{arrays['embeddings'].dtype}{list(arrays['embeddings'].shape)}"
        problems.append(f"embeddings: got {got}, expected floats [N, 1, 1, D]")
    elif not np.isfinite(embeddings.astype(np.float32)).all():
        problems.append("embeddings: got values that are no numbers")
    if cache.ndim != 2 or cache.dtype not in (np.int64, np.int32):
        got = f"{arrays['cache'].dtype}{list(arrays['cache'].shape)}"
        problems.append(f"cache: got {got}, expected integers [1, K, T]")
    if problems:
        raise ConversionError(problems, subject=subject)
    return Voice(embeddings, cache.astype(np.int32))
