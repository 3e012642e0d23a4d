"""Adapters in and out: `lora.safetensors` as moshi-finetune writes it, beside any base model.

Names: `X.lora_A.weight` [r, in] and `X.lora_B.weight` [out, r] for every matrix X of moshi 0.2.13's
state dict, which has a matrix a step (`in_projs.{s}`) where a release has a fused one. Its load
hook splits fused adapters too, so both kinds are read. Source: moshi/modules/lora.py,
moshi-finetune finetune/checkpointing.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from convert.moshi import lora_rules
from convert.rules import Plan, flatten, plan
from convert.safetensors_io import (
    MemoryTensors,
    SafetensorsFile,
    TensorInfo,
    Tensors,
    write_safetensors,
)
from convert.sources import abstract_params
from convert.tree import check_leaves, leaf_formats, make_tensor, read_tree
from helium_jax import MoshiConfig
from layers_jax import split_adapters
from layers_jax.functional import Params


def load_lora(
    path: str | os.PathLike[str], config: MoshiConfig, *, dtype: DTypeLike | None = None
) -> Params:
    """The adapters of a file, to be joined with a base model by `layers_jax.merge_adapters`.

    Args:
      path: `lora.safetensors`.
      config: the model with its adapters (`lora` set), as `MoshiConfig.from_dict` reads it from the
        `config.json` beside the file.
      dtype: format of the adapters; None keeps the stored one.

    Raises:
      ConversionError: the file has not exactly the adapters of `config`, or is broken.
      ValueError: `config` has no adapters.
    """
    with SafetensorsFile(Path(path)) as file:
        return _read(config, file, dtype, str(path))


def lora_from_tensors(
    config: MoshiConfig, tensors: Mapping[str, np.ndarray], *, dtype: DTypeLike | None = None
) -> Params:
    """`load_lora` from tensors in memory."""
    return _read(config, MemoryTensors(tensors), dtype, "adapters")


def export_lora(path: str | os.PathLike[str], config: MoshiConfig, adapters: Params) -> Path:
    """Writes adapters as the `lora.safetensors` that the PyTorch runtimes load.

    Args:
      path: the file; its `config.json` is the base model's with `lora`, `lora_rank` and
        `lora_scaling` (`config.to_dict()`).
      config: the model with its adapters.
      adapters: first part of `layers_jax.split_adapters`.

    Raises:
      ConversionError: the adapters are not those of `config`.
      ValueError: `config` has no adapters.
    """
    made = _plan(config, None, "adapters")
    leaves = flatten(adapters)
    check_leaves(made, leaves, subject="adapters")
    formats = leaf_formats(made, leaves)
    infos = {key: TensorInfo(shape, formats[key]) for key, shape in made.tensor_shapes.items()}
    write_safetensors(
        Path(path), infos, lambda key: make_tensor(made, key, leaves, formats[key]), {}
    )
    return Path(path)


def _read(config: MoshiConfig, file: Tensors, dtype: DTypeLike | None, subject: str) -> Params:
    made = _plan(config, file.tensors, subject)
    target = None if dtype is None else np.dtype(dtype)
    return read_tree(made, file, _shapes(config), dtype=target, place=jnp.array, subject=subject)


def _plan(config: MoshiConfig, stored: Mapping[str, TensorInfo] | None, subject: str) -> Plan:
    leaves = {path: leaf.shape for path, leaf in flatten(_shapes(config)).items()}
    return plan(lora_rules(config), leaves, stored, subject=subject)


def _shapes(config: MoshiConfig) -> Any:
    if config.lora is None:
        raise ValueError(
            "the model has no adapters, expected a config with lora, lora_rank and lora_scaling; "
            "read the config.json beside lora.safetensors"
        )
    return split_adapters(abstract_params(config))[0]
