"""A checkpoint: which files it has, and what its JSON files say.

Two kinds of folder hold the same model: a release as Kyutai publishes it (`config.json`, two
safetensors files, a sentencepiece model) or NVIDIA (the same without shapes in `config.json`, and
voices); and what `to-jax` makes of it (the same small files, orbax checkpoints,
`conversion.json`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
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
from convert.files import (
    CONFIG_NAME,
    MOSHI_NAME,
    Files,
    file_alone,
    find_files,
)
from convert.foreign import from_transformers, is_transformers
from convert.hub import local
from convert.shards import INDEX_SUFFIX, open_weights
from convert.voices import ARCHIVE
from helium_jax import MoshiConfig, moshi_7b
from mimi_jax import MimiConfig

Part = Literal["moshi", "mimi"]
PARTS: tuple[Part, Part] = ("moshi", "mimi")

MODEL_TYPES = ("moshi", "personaplex", "hibiki", "stt", "helium")
CONVERSION_NAME = "conversion.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint says about itself; no weights are read.

    Attributes:
      directory: the folder it is in.
      lm: shape of the language model.
      mimi: shape of the codec, with as many codebooks in use as the language model needs.
      lm_gen_config: sampling defaults that the release recommends; may be empty.
      names: file names of a release by their `config.json` keys; None for what it does not have.
      files: where those files are, by the same keys.
      is_jax: the folder was made by `to-jax`.
      recorded: shapes in the form of an `--arch` file, where no `config.json` has them.
      rewritten: the `config.json` of a release, where the one at hand does not describe one.
    """

    directory: Path
    lm: MoshiConfig
    mimi: MimiConfig
    lm_gen_config: Mapping[str, Any]
    names: Mapping[str, str | None]
    files: Mapping[str, Path]
    is_jax: bool
    recorded: Mapping[str, Any] | None = None
    rewritten: Mapping[str, Any] | None = None

    @property
    def parts(self) -> list[Part]:
        """The models that it holds."""
        if self.is_jax:
            return [part for part in PARTS if (self.directory / part).is_dir()]
        return [part for part in PARTS if f"{part}_name" in self.files]

    def config(self, part: Part) -> MoshiConfig | MimiConfig:
        """Shape of a part."""
        return self.lm if part == "moshi" else self.mimi

    def file_name(self, part: Part) -> str:
        """Name of the safetensors file of a part in a release."""
        return str(self.names[f"{part}_name"])

    def weights(self, part: Part) -> Path:
        """Where the weights of a part are: a file, an index of several, or an orbax folder.

        Raises:
          FileNotFoundError: the checkpoint does not have that part.
        """
        if self.is_jax:
            return self.directory / part
        if f"{part}_name" not in self.files:
            raise FileNotFoundError(
                f"cannot read {part} weights of {self.directory}: it has none, expected a file that"
                " its config.json names; put one there"
            )
        return self.files[f"{part}_name"]

    @property
    def tokenizer(self) -> Path:
        """The sentencepiece model of the text stream."""
        return self.files.get("tokenizer_name", self.directory / "tokenizer.model")

    @property
    def side_files(self) -> dict[str, Path]:
        """The files that travel with the weights unchanged: name in a release -> where it is."""
        own = [ARCHIVE] if self.rewritten is not None else [CONFIG_NAME, ARCHIVE]
        found = {n: self.directory / n for n in own if (self.directory / n).is_file()}
        for key in ("mimi_config_name", "tokenizer_name"):
            if key in self.files:
                found[str(self.names[key])] = self.files[key]
        return found


def read_configs(
    directory: str | os.PathLike[str], *, arch: str | os.PathLike[str] | None = None
) -> Checkpoint:
    """Reads the JSON files of a checkpoint.

    Where no `config.json` says what the model looks like, the names of its tensors do, for the one
    released size of Moshi and of PersonaPlex. Without a codec config it is the released codec.

    Args:
      directory: the folder, a safetensors file (with the `config.json` beside it if there is one),
        or `hf://ORG/NAME@REVISION`.
      arch: JSON file with the shapes of a model that neither says, see `from_arch_file`.

    Raises:
      ConversionError: it is no checkpoint folder, a JSON file is broken, or a config asks for
        something that is not implemented.
    """
    source = local(directory)
    alone = source.is_file() and _looks_like_weights(source)
    folder = source.parent if alone else source
    raw = _read_config_json(folder, needed=not alone)
    if alone:
        files, problems = file_alone(source), []
    else:
        files, problems = find_files(folder, raw)
    if (kind := raw.get("model_type", "moshi")) not in MODEL_TYPES:
        expected = ", ".join(map(repr, MODEL_TYPES))
        problems.append(f"{CONFIG_NAME} model_type is {kind!r}, expected one of {expected}")
    found = None
    try:
        if arch is None and says_architecture(raw):
            found = _from_configs(folder, raw, files, problems)
        elif not problems:
            found = _without_config(folder, raw, files, arch)
    except ConversionError as error:
        problems += error.problems
    except (ValueError, TypeError) as error:
        problems.append(str(error))
    if problems or found is None:
        raise ConversionError(problems, subject=str(directory))
    checkpoint = Checkpoint(
        directory=folder,
        lm=found.lm,
        mimi=found.mimi,
        lm_gen_config=raw.get("lm_gen_config") or {},
        names=files.names,
        files=files.paths,
        is_jax=(folder / CONVERSION_NAME).is_file(),
        recorded=found.recorded,
    )
    if not checkpoint.is_jax and says_architecture(raw) and _needs_rewriting(raw, checkpoint):
        return replace(checkpoint, rewritten=_release_config(checkpoint, raw))
    return checkpoint


def _looks_like_weights(path: Path) -> bool:
    return path.suffix == ".safetensors" or path.name.endswith(INDEX_SUFFIX)


def _needs_rewriting(raw: Mapping[str, Any], checkpoint: Checkpoint) -> bool:
    """Whether a release of these weights needs another `config.json` than the one beside them."""
    named = {key: checkpoint.names[key] for key in checkpoint.names if key in raw}
    return (
        is_transformers(raw)
        or bool(raw.get("quantize"))
        or bool(raw.get("lora"))
        or any(raw[key] != name for key, name in named.items())
    )


def _release_config(checkpoint: Checkpoint, raw: Mapping[str, Any]) -> dict[str, Any]:
    kept = {} if is_transformers(raw) else raw
    extra = {key: kept[key] for key in ("lm_gen_config", "stt_config", "model_id") if key in kept}
    kind = raw.get("model_type", "moshi")
    names = {key: name for key, name in checkpoint.names.items() if name is not None}
    return {**checkpoint.lm.to_dict(), **extra, **names, "model_type": kind}


def _from_configs(
    folder: Path, raw: Mapping[str, Any], files: Files, problems: list[str]
) -> Architecture | None:
    """Both parts of a folder that describes itself; `problems` takes what is wrong with either."""
    lm = None
    try:
        lm = lm_from_config(from_transformers(raw) if is_transformers(raw) else raw)
        if lm.lora and not (folder / CONVERSION_NAME).is_file():
            lm = replace(lm, lora=None)  # its weights are merged: adapters alone were refused
    except (ValueError, TypeError, AttributeError, ArithmeticError, LookupError) as error:
        problems.append(f"{CONFIG_NAME}: {error}")
    name = files.names["mimi_config_name"]
    try:
        values = read_json(folder / name) if name else None
        mimi = mimi_from_config(values, lm or moshi_7b())
    except (ValueError, TypeError) as error:
        problems.append(f"{name or CONFIG_NAME}: {error}")
        return None
    return Architecture(lm, mimi) if lm else None


def _without_config(
    folder: Path, raw: Mapping[str, Any], files: Files, arch: str | os.PathLike[str] | None
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
    if "moshi_name" not in files.paths:
        return Architecture(moshi_7b(), mimi_from_config(None, moshi_7b()))  # a codec alone
    with open_weights(files.paths["moshi_name"]) as file:
        return from_tensors(file.tensors)


def _read_config_json(folder: Path, *, needed: bool) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    if path.is_file():
        try:
            return read_json(path)
        except ValueError as error:
            raise ConversionError([f"{CONFIG_NAME}: {error}"], subject=str(folder)) from error
    known = (MOSHI_NAME, MOSHI_NAME + INDEX_SUFFIX, CONVERSION_NAME)
    if needed and not any((folder / name).is_file() for name in known):
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
    write_json(folder / CONFIG_NAME, values)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object for people to read."""
    path.write_text(json.dumps(values, indent=2) + "\n")
