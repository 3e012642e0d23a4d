"""Checkpoint folder in, model out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from convert.checkpoint import read_configs
from convert.rules import dotted, flatten, plan
from convert.safetensors_io import MemoryTensors
from convert.sources import (
    Source,
    abstract_mimi,
    abstract_moshi,
    abstract_params,
    open_source,
    rules_of,
)
from convert.tree import read_tree
from helium_jax import Moshi, MoshiConfig
from layers_jax import Precision, split
from layers_jax.functional import Params
from layers_jax.linear import quantize
from mimi_jax import Mimi, MimiConfig


def load_moshi(
    directory: str | os.PathLike[str],
    *,
    precision: Precision | None = None,
    arch: str | os.PathLike[str] | None = None,
) -> tuple[Moshi, Params]:
    """Loads the language model of a checkpoint folder: a release, or what `to-jax` made of one.

    One tensor is converted at a time; what is finished is on the default device.

    Args:
      directory: the folder.
      precision: number formats; parameters are cast to its `params` (bf16 to f32 is exact), or
        matrices quantised, one at a time from the stored values, where it says int8. None
        keeps the stored format of each, and computes in bf16 if that is all there is, else in f32.
      arch: JSON file with the shapes of a model whose folder does not say them.

    Returns:
      The module, holding shapes only, and its parameters.

    Raises:
      ConversionError: config or weights cannot be used; lists every problem of that file.
      FileNotFoundError: the weights that the config names are not there.
    """
    checkpoint = read_configs(directory, arch=arch)
    precision_of_file = replace(precision, int8=False) if precision else Precision.f32()
    module = abstract_moshi(checkpoint.lm, precision_of_file)
    with open_source(checkpoint, "moshi", split(module)[1]) as source:
        if precision is not None and precision.int8:
            module = abstract_moshi(checkpoint.lm, precision)
            return module, _in_int8(source, split(module)[1])
        params = source.tree(np.dtype(precision.params) if precision else None, jax.device_put)
        # The reference keeps conditioners in float32 beside a model of any format.
        formats = {f for k, f in source.formats.items() if not k.startswith("condition_provider.")}
        if precision is None and formats == {"BF16"}:
            module = abstract_moshi(checkpoint.lm, Precision.bf16())
    return module, params


def _in_int8(source: Source, shapes: Params) -> Params:
    """The parameters with int8 matrices, each quantised from its stored values as it comes."""
    leaves: dict[str, jax.Array] = {}
    places, made = flatten(shapes), jax.jit(quantize)
    for keys, leaf in source.leaves(None):
        path = dotted(keys)
        scale = f"{path.removesuffix('kernel')}scale"
        if path.endswith(".kernel") and scale in places:
            leaves[path], leaves[scale] = made(jnp.asarray(leaf))
        else:
            leaves[path] = jax.device_put(leaf.astype(places[path].dtype, copy=False))
    return jax.tree.unflatten(jax.tree.structure(shapes), [leaves[path] for path in places])


def load_mimi(
    directory: str | os.PathLike[str], *, arch: str | os.PathLike[str] | None = None
) -> tuple[Mimi, Params]:
    """Loads the codec of a checkpoint folder, always in f32; `arch` as in `load_moshi`.

    Returns:
      The module, holding shapes only, and its parameters. As many codebooks are in use as the
      language model of the folder needs.

    Raises:
      ConversionError: config or weights cannot be used; lists every problem of that file.
      FileNotFoundError: the weights that the config names are not there.
    """
    checkpoint = read_configs(directory, arch=arch)
    module = abstract_mimi(checkpoint.mimi)
    with open_source(checkpoint, "mimi", split(module)[1]) as source:
        return module, source.tree(np.dtype(np.float32), jax.device_put)


def params_from_tensors(
    config: MoshiConfig | MimiConfig,
    tensors: Mapping[str, np.ndarray],
    *,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """The parameters of a model from PyTorch tensors that are in memory, under any known names.

    Args:
      config: shape of a language model or a codec.
      tensors: name -> values.
      dtype: format of the parameters.

    Raises:
      ConversionError: the tensors are not those of `config`; lists every problem.
    """
    shapes, memory = abstract_params(config), MemoryTensors(tensors)
    leaves = {path: leaf.shape for path, leaf in flatten(shapes).items()}
    made = plan(rules_of(config), leaves, memory.tensors, subject="tensors")
    target = np.dtype(dtype)
    return read_tree(made, memory, shapes, dtype=target, place=jnp.array, subject="tensors")
