"""A checkpoint folder: which files it has, and what its JSON files say.

Two kinds of folder hold the same model: a release as Kyutai publishes it (`config.json`, two
safetensors files, a sentencepiece model) or NVIDIA (the same without shapes in `config.json`, and
voices); and what `to-jax` makes of it (the same small files, two orbax checkpoints,
`conversion.json`). File keys and default names: `CheckpointInfo` in moshi 0.2.13 (`loaders.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from convert.architecture import (
    Architecture,
    from_arch_file,
    from_tensors,
    lm_from_config,
    mimi_from_config,
    read_json,
    says_architecture,
)
from convert.errors import ConversionError
from convert.shards import INDEX_SUFFIX, open_weights
from convert.voices import ARCHIVE
from helium_jax import MoshiConfig, moshi_7b
from mimi_jax import MimiConfig

Part = Literal["moshi", "mimi"]
PARTS: tuple[Part, Part] = ("moshi", "mimi")

MODEL_TYPES = ("moshi", "personaplex", "hibiki", "stt")
CONFIG_NAME = "config.json"
CONVERSION_NAME = "conversion.json"
MOSHI_NAME = "model.safetensors"
DEFAULT_NAMES = {
    "moshi_name": MOSHI_NAME,
    "mimi_name": "tokenizer-e351c8d8-checkpoint125.safetensors",
    "mimi_config_name": None,
    "tokenizer_name": "tokenizer_spm_32k_3.model",
}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint folder says about itself; no weights are read.

    Attributes:
      directory: the folder.
      lm: shape of the language model.
      mimi: shape of the codec, with as many codebooks in use as the language model needs.
      lm_gen_config: sampling defaults that the release recommends; may be empty.
      names: file names by their `config.json` keys; `mimi_config_name` may be None.
      is_jax: the folder was made by `to-jax`.
      recorded: shapes in the form of an `--arch` file, where no `config.json` has them.
    """

    directory: Path
    lm: MoshiConfig
    mimi: MimiConfig
    lm_gen_config: Mapping[str, Any]
    names: Mapping[str, str | None]
    is_jax: bool
    recorded: Mapping[str, Any] | None = None

    def config(self, part: Part) -> MoshiConfig | MimiConfig:
        """Shape of a part."""
        return self.lm if part == "moshi" else self.mimi

    def file_name(self, part: Part) -> str:
        """Name of the safetensors file of a part in a release."""
        return str(self.names[f"{part}_name"])

    def weights(self, part: Part) -> Path:
        """Where the weights of a part are: that file, its index, or an orbax folder."""
        if self.is_jax:
            return self.directory / part
        return _weights_path(self.directory, self.file_name(part))

    @property
    def tokenizer(self) -> Path:
        """The sentencepiece model of the text stream."""
        return self.directory / str(self.names["tokenizer_name"])

    @property
    def side_files(self) -> list[str]:
        """Names of the files that travel with the weights unchanged."""
        names = [self.names["mimi_config_name"], self.names["tokenizer_name"]]
        optional = [name for name in (CONFIG_NAME, ARCHIVE) if (self.directory / name).is_file()]
        return [*optional, *(name for name in names if name)]


def read_configs(
    directory: str | os.PathLike[str], *, arch: str | os.PathLike[str] | None = None
) -> Checkpoint:
    """Reads the JSON files of a checkpoint folder.

    Where no `config.json` says what the model looks like, the names of its tensors do, for the one
    released size of Moshi and of PersonaPlex. Without a codec config it is the released codec.

    Args:
      directory: the folder.
      arch: JSON file with the shapes of a model that neither says, see `from_arch_file`.

    Raises:
      ConversionError: it is no checkpoint folder, a JSON file is broken, or a config asks for
        something that is not implemented.
    """
    folder = Path(directory)
    raw = _read_config_json(folder)
    names, problems = _file_names(raw)
    if (kind := raw.get("model_type", "moshi")) not in MODEL_TYPES:
        expected = ", ".join(map(repr, MODEL_TYPES))
        problems.append(f"{CONFIG_NAME} model_type is {kind!r}, expected one of {expected}")
    found = None
    try:
        if arch is None and says_architecture(raw):
            found = _from_configs(folder, raw, names["mimi_config_name"], problems)
        else:
            found = _without_config(folder, raw, names, arch)
    except (ValueError, TypeError) as error:
        problems.append(str(error))
    if problems or found is None:
        raise ConversionError(problems, subject=str(folder))
    return Checkpoint(
        directory=folder,
        lm=found.lm,
        mimi=found.mimi,
        lm_gen_config=raw.get("lm_gen_config") or {},
        names=names,
        is_jax=(folder / CONVERSION_NAME).is_file(),
        recorded=found.recorded,
    )


def _weights_path(folder: Path, name: str) -> Path:
    """The file, or in its absence the index of the files that it was split into."""
    index = folder / (name + INDEX_SUFFIX)
    return index if index.is_file() and not (folder / name).is_file() else folder / name


def _from_configs(
    folder: Path, raw: Mapping[str, Any], mimi_name: str | None, problems: list[str]
) -> Architecture | None:
    """Both parts of a folder that describes itself; `problems` takes what is wrong with either."""
    lm = None
    try:
        lm = lm_from_config(raw)
    except (ValueError, TypeError) as error:
        problems.append(f"{CONFIG_NAME}: {error}")
    try:
        values = read_json(folder / mimi_name) if mimi_name else None
        mimi = mimi_from_config(values, lm or moshi_7b())
    except (ValueError, TypeError) as error:
        problems.append(f"{mimi_name}: {error}")
        return None
    return Architecture(lm, mimi) if lm else None


def _without_config(
    folder: Path,
    raw: Mapping[str, Any],
    names: Mapping[str, str | None],
    arch: str | os.PathLike[str] | None,
) -> Architecture:
    if arch is not None:
        if says_architecture(raw):
            raise ValueError(f"{CONFIG_NAME} says what the model looks like; leave {arch} away")
        try:
            return from_arch_file(read_json(Path(arch)))
        except ValueError as error:
            raise ValueError(f"{arch}: {error}") from error
    if (folder / CONVERSION_NAME).is_file():
        recorded = read_json(folder / CONVERSION_NAME).get("arch")
        if not isinstance(recorded, dict):
            raise ValueError(f"{CONVERSION_NAME} has no shapes; convert the release again")
        return from_arch_file(recorded)
    with open_weights(_weights_path(folder, str(names["moshi_name"]))) as file:
        return from_tensors(file.tensors)


def _read_config_json(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    if path.is_file():
        try:
            return read_json(path)
        except ValueError as error:
            raise ConversionError([f"{CONFIG_NAME}: {error}"], subject=str(folder)) from error
    known = (MOSHI_NAME, MOSHI_NAME + INDEX_SUFFIX, CONVERSION_NAME)
    if not any((folder / name).is_file() for name in known):
        problem = (
            f"not a checkpoint folder: got neither {CONFIG_NAME} nor {MOSHI_NAME}, expected a"
            " folder as Kyutai or NVIDIA publishes one, or as to-jax writes it"
        )
        raise ConversionError([problem], subject=str(folder))
    return {}


def write_config(folder: Path, config: MoshiConfig) -> None:
    """Writes the `config.json` of a release of the language model alone, with Kyutai's keys."""
    kind = "hibiki" if config.reads_eos_as_pad else "moshi"
    values = {**config.to_dict(), "moshi_name": MOSHI_NAME, "model_type": kind}
    (folder / CONFIG_NAME).write_text(json.dumps(values, indent=2) + "\n")


def _file_names(raw: Mapping[str, Any]) -> tuple[dict[str, str | None], list[str]]:
    names: dict[str, str | None] = {key: raw.get(key, name) for key, name in DEFAULT_NAMES.items()}
    problems = []
    for key, name in names.items():
        if name is None and DEFAULT_NAMES[key] is None:
            continue
        path = PurePosixPath(str(name))
        outside = "://" in str(name) or path.is_absolute() or ".." in path.parts
        if not isinstance(name, str) or not path.name or outside:
            problems.append(
                f"{CONFIG_NAME} {key} is {name!r}, expected a file inside the folder; "
                "fetch that file, put it there and name it"
            )
    return names, problems
