"""Model in memory in, files for the PyTorch runtimes out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

from convert.checkpoint import Checkpoint, read_configs, write_config
from convert.errors import ConversionError
from convert.files import MOSHI_NAME
from convert.folders import Progress, new_folder, silent, write_release
from convert.sources import Source, abstract_params, memory_source, open_source
from helium_jax import MoshiConfig
from layers_jax.functional import Params
from mimi_jax import MimiConfig

Dtypes = Literal["keep", "float32", "bfloat16"]

_FORMATS = {"float32": "F32", "bfloat16": "BF16"}


def export_moshi(
    directory: str | os.PathLike[str],
    config: MoshiConfig,
    params: Params,
    *,
    source: str | os.PathLike[str] | None = None,
    dtypes: Dtypes = "keep",
) -> Path:
    """Writes a folder that the PyTorch runtimes load: all of it, or nothing.

    Args:
      directory: the folder to make; it must not exist, or be empty.
      config: shape of the language model.
      params: its parameters, with a list entry a layer.
      source: the checkpoint folder that the parameters started from. Its `config.json`, codec and
        tokenizer are passed on unchanged. Without it the folder holds a `config.json` and the
        language model only.
      dtypes: "keep" gives each tensor its format in `source` (without one, the format it has),
        rounded to nearest even where that is narrower.

    Returns:
      The folder.

    Raises:
      ConversionError: the parameters are not those of `config`, or `source` has another config.
      ValueError: the model has adapters.
      FileExistsError: `directory` is in use.
    """
    if config.lora is not None:
        raise ValueError(
            "the parameters have adapters, expected a plain model; add them in with "
            "layers_jax.fuse, or write them beside their base with export_lora"
        )
    weights = _in_memory(config, params, dtypes, "moshi parameters")
    if source is None:
        with new_folder(directory) as folder:
            write_config(folder, config)
            weights.write(folder / MOSHI_NAME)
        return Path(directory)
    origin = read_configs(source)
    _check_same_config(config, origin)
    with open_source(origin, "moshi", abstract_params(config)) as stored:
        if dtypes == "keep":
            weights = weights.recast(stored.formats)
        weights = replace(weights, metadata=stored.metadata)
    write_release(origin, directory, weights)
    return Path(directory)


def export_mimi(
    path: str | os.PathLike[str], config: MimiConfig, params: Params, *, dtypes: Dtypes = "keep"
) -> Path:
    """Writes a codec's weights as one safetensors file under the released names.

    Args:
      path: the file.
      config: shape of the codec.
      params: its parameters; code vectors are left out, being derived from the sums beside them.
      dtypes: "keep" writes each tensor in the format it has.

    Returns:
      The file.

    Raises:
      ConversionError: the parameters are not those of `config`.
    """
    _in_memory(config, params, dtypes, "mimi parameters").write(Path(path))
    return Path(path)


def to_torch(
    source: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    dtypes: Dtypes = "keep",
    progress: Progress = silent,
) -> None:
    """Converts a folder that `to_jax` made back to a release; "keep" gives the original's bytes.

    Raises:
      ConversionError: the source cannot be used, or is a release already.
      FileNotFoundError: a file that its config names is not there.
      FileExistsError: `directory` is in use.
    """
    origin = read_configs(source)
    if not origin.is_jax:
        problem = "got a release already, expected a folder that to-jax made"
        raise ConversionError([problem], subject=str(source))
    with open_source(origin, "moshi", abstract_params(origin.lm)) as weights:
        write_release(origin, directory, _recast(weights, dtypes), progress=progress)


def _in_memory(
    config: MoshiConfig | MimiConfig, params: Params, dtypes: Dtypes, subject: str
) -> Source:
    shapes = abstract_params(config)
    return _recast(memory_source(config, params, shapes, subject=subject), dtypes)


def _recast(weights: Source, dtypes: Dtypes) -> Source:
    if dtypes == "keep":
        return weights
    if dtypes not in _FORMATS:
        choices = ", ".join(("keep", *_FORMATS))
        raise ValueError(f"dtypes is {dtypes!r}, expected one of {choices}")
    return weights.recast(dict.fromkeys(weights.tensors, _FORMATS[dtypes]))


def _check_same_config(config: MoshiConfig, origin: Checkpoint) -> None:
    ours, theirs = config.to_dict(), origin.lm.to_dict()
    different = [
        f"{key} is {ours[key]!r}, in the source {theirs[key]!r}"
        for key in ours
        if ours[key] != theirs[key]
    ]
    if different:
        different.append("give the folder that these parameters were loaded from")
        raise ConversionError(different, subject=str(origin.directory))
