"""Model in memory in, files for the PyTorch runtimes out."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from convert.checkpoint import Checkpoint, read_configs, write_config
from convert.errors import ConversionError
from convert.files import MOSHI_NAME
from convert.folders import Progress, fill_release, new_folder, silent, write_release
from convert.hub import repository_of
from convert.release import CARD_NAME, Change, change_against, model_card, write_hashes
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


@dataclass(frozen=True, kw_only=True)
class ReleaseOptions:
    """What `to_torch` writes beside the weights.

    Attributes:
      dtypes: number format of the language model; "keep" gives the original's bytes.
      max_shard_bytes: largest weights file; None for one file, as Kyutai's own loader needs.
      base: checkpoint that training started from, to say how much of it the release changed.
      base_model: its repository, for licence and notices; that of `base` if it is on the hub.
      run: folder of the training run, for the model card.
      hashes: write `SHA256SUMS`, which reads all files once more.
    """

    dtypes: Dtypes = "keep"
    max_shard_bytes: int | None = None
    base: str | os.PathLike[str] | None = None
    base_model: str | None = None
    run: Path | None = None
    hashes: bool = False


def to_torch(
    source: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    options: ReleaseOptions | None = None,
    *,
    progress: Progress = silent,
) -> Change | None:
    """Writes a release of a checkpoint: weights, configs, tokenizer, model card.

    Args:
      source: a folder that `to_jax` made, or a release (a trained one, to be given a card).
      directory: the folder to make; it must not exist, or be empty.
      options: what else to write, and how.
      progress: told about every tensor.

    Returns:
      How far the weights are from `options.base`, if one was given.

    Raises:
      ConversionError: the source, the base or the run cannot be used.
      FileNotFoundError: a file that a config names is not there.
      FileExistsError: `directory` is in use.
    """
    chosen = options or ReleaseOptions()
    origin = read_configs(source)
    with (
        new_folder(directory) as folder,
        open_source(origin, "moshi", abstract_params(origin.lm)) as weights,
    ):
        weights = _recast(weights, chosen.dtypes)
        change = change_against(weights, chosen.base) if chosen.base is not None else None
        card = model_card(
            base_model=chosen.base_model or repository_of(chosen.base),
            run=chosen.run,
            change=change,
            title=Path(directory).name,
        )
        fill_release(origin, folder, weights, max_bytes=chosen.max_shard_bytes, progress=progress)
        (folder / CARD_NAME).write_text(card, encoding="utf-8")
        if chosen.hashes:
            write_hashes(folder)
    return change


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
    kept = weights.formats  # conditioners stay in float32, as the reference's loader has them
    return weights.recast(
        {k: f if k.startswith("condition_provider.") else _FORMATS[dtypes] for k, f in kept.items()}
    )


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
