"""Adapters added into their base model: a plain release out of two checkpoints."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from convert.architecture import read_json
from convert.checkpoint import read_configs
from convert.errors import ConversionError
from convert.export import export_moshi
from convert.files import ADAPTERS_NAME, CONFIG_NAME
from convert.hub import local
from convert.load import load_moshi
from convert.lora import load_lora
from layers_jax import fuse, merge_adapters
from layers_jax.lora import read_lora


def fuse_lora(
    base: str | os.PathLike[str],
    adapters: str | os.PathLike[str],
    directory: str | os.PathLike[str],
) -> Path:
    """Writes a release of `base` with the adapters of moshi-finetune added in.

    As in the reference, the sum is made in the format of the base model. Codec, tokenizer and
    config are those of the base.

    Args:
      base: checkpoint folder of the base model.
      adapters: folder with `lora.safetensors` and the `config.json` beside it.
      directory: folder to make; must not exist, or be empty.

    Raises:
      ConversionError: one of them cannot be used, or the adapters are not of this base.
      FileExistsError: `directory` is in use.
    """
    folder = local(adapters)
    try:
        lora = read_lora(read_json(folder / CONFIG_NAME))
    except ValueError as error:
        raise ConversionError([f"{CONFIG_NAME}: {error}"], subject=str(folder)) from error
    if lora is None:
        problem = f"{CONFIG_NAME} has no lora, expected lora, lora_rank and lora_scaling"
        raise ConversionError([problem], subject=str(folder))
    config = replace(read_configs(base).lm, lora=lora)
    _, params = load_moshi(base)
    dtype = params["text_head"]["kernel"].dtype
    factors = load_lora(folder / ADAPTERS_NAME, config, dtype=dtype)
    fused = fuse(merge_adapters(factors, params), lora.scaling)
    return export_moshi(directory, replace(config, lora=None), fused, source=base)
