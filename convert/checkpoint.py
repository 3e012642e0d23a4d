"""A checkpoint folder: which files it has, and what its JSON files say.

Two kinds of folder hold the same model: a release as Kyutai publishes it (`config.json`, two
safetensors files, a sentencepiece model), and what `to-jax` makes of it (the same JSON files and
tokenizer, two orbax checkpoints, `conversion.json`). File keys and default names: `CheckpointInfo`
in moshi 0.2.13 (`loaders.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from convert.errors import ConversionError
from helium_jax import MoshiConfig, moshi_7b
from mimi_jax import MimiConfig, mimi_24khz

Part = Literal["moshi", "mimi"]
PARTS: tuple[Part, Part] = ("moshi", "mimi")

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
    """

    directory: Path
    lm: MoshiConfig
    mimi: MimiConfig
    lm_gen_config: Mapping[str, Any]
    names: Mapping[str, str | None]
    is_jax: bool

    def config(self, part: Part) -> MoshiConfig | MimiConfig:
        """Shape of a part."""
        return self.lm if part == "moshi" else self.mimi

    def file_name(self, part: Part) -> str:
        """Name of the safetensors file of a part in a release."""
        return str(self.names[f"{part}_name"])

    def weights(self, part: Part) -> Path:
        """Where the weights of a part are: that file, or the orbax folder of a converted one."""
        return self.directory / (part if self.is_jax else self.file_name(part))

    @property
    def tokenizer(self) -> Path:
        """The sentencepiece model of the text stream."""
        return self.directory / str(self.names["tokenizer_name"])

    @property
    def side_files(self) -> list[str]:
        """Names of the files that travel with the weights unchanged."""
        names = [self.names["mimi_config_name"], self.names["tokenizer_name"]]
        if (self.directory / CONFIG_NAME).is_file():
            names.insert(0, CONFIG_NAME)
        return [name for name in names if name]


def read_configs(directory: str | os.PathLike[str]) -> Checkpoint:
    """Reads the JSON files of a checkpoint folder.

    A folder without `config.json` is taken for Moshi 7B v0.1, one without a codec config for the
    released 24 kHz codec, both as moshi 0.2.13 does; weights that do not fit are then refused.

    Raises:
      ConversionError: it is no checkpoint folder, a JSON file is broken, or a config asks for
        something that is not implemented.
    """
    folder = Path(directory)
    raw = _read_config_json(folder)
    names, problems = _file_names(raw)
    if (kind := raw.get("model_type", "moshi")) != "moshi":
        problems.append(f"{CONFIG_NAME} model_type is {kind!r}, expected 'moshi'")
    lm = mimi = None
    try:
        lm = MoshiConfig.from_dict(raw) if raw else moshi_7b()
    except (ValueError, TypeError) as error:
        problems.append(f"{CONFIG_NAME}: {error}")
    try:
        mimi = _mimi_config(folder, names["mimi_config_name"], lm)
    except (ValueError, TypeError) as error:
        problems.append(f"{names['mimi_config_name']}: {error}")
    if problems or lm is None or mimi is None:
        raise ConversionError(problems, subject=str(folder))
    return Checkpoint(
        directory=folder,
        lm=lm,
        mimi=mimi,
        lm_gen_config=raw.get("lm_gen_config") or {},
        names=names,
        is_jax=(folder / CONVERSION_NAME).is_file(),
    )


def _read_config_json(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    if path.is_file():
        try:
            return _read_json(path)
        except ValueError as error:
            raise ConversionError([f"{CONFIG_NAME}: {error}"], subject=str(folder)) from error
    if not (folder / MOSHI_NAME).is_file():
        problem = (
            f"not a checkpoint folder: got neither {CONFIG_NAME} nor {MOSHI_NAME}, expected a"
            " folder as Kyutai publishes one, or as to-jax writes it"
        )
        raise ConversionError([problem], subject=str(folder))
    return {}


def write_config(folder: Path, config: MoshiConfig) -> None:
    """Writes the `config.json` of a release of the language model alone, with Kyutai's keys."""
    values = {**config.to_dict(), "moshi_name": MOSHI_NAME, "model_type": "moshi"}
    (folder / CONFIG_NAME).write_text(json.dumps(values, indent=2) + "\n")


def _mimi_config(folder: Path, name: str | None, lm: MoshiConfig | None) -> MimiConfig:
    books = max(lm.dep_q, lm.n_q - lm.dep_q) if lm else 8
    if name is None:
        return mimi_24khz(books)
    return MimiConfig.from_dict(_read_json(folder / name), num_codebooks=books)


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


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError("got no such file, expected a JSON object")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"got a JSON {type(values).__name__}, expected an object")
    return values
