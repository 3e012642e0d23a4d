"""One view of weights wherever they are: tensors under their released names, or our tree."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from convert.checkpoint import CONVERSION_NAME, Checkpoint, Part
from convert.errors import ConversionError
from convert.mimi import mimi_rules
from convert.moshi import lora_rules, moshi_rules
from convert.orbax_io import restore_tree
from convert.rules import Derived, Plan, Rule, flatten, plan
from convert.safetensors_io import FLOATS, SafetensorsFile, TensorInfo, write_safetensors
from convert.tree import Formats, check_tree, leaf_formats, make_tensor, read_tree, stored_formats
from helium_jax import Moshi, MoshiConfig
from layers_jax import Precision, split
from layers_jax.functional import Params, abstract
from mimi_jax import Mimi, MimiConfig

Place = Callable[[np.ndarray], Any]


@lru_cache(maxsize=8)
def _abstract(config: MoshiConfig | MimiConfig, precision: Precision) -> tuple[Any, Any]:
    # Tracing the initialisers of a 7B model takes seconds: once is enough.
    rngs = partial(nnx.Rngs, 0)
    if isinstance(config, MimiConfig):
        return nnx.split(abstract(lambda: Mimi(config, rngs=rngs())))
    return nnx.split(abstract(lambda: Moshi(config, precision=precision, rngs=rngs())))


def abstract_moshi(config: MoshiConfig, precision: Precision) -> Moshi:
    """A language model that holds shapes in place of parameters."""
    return nnx.merge(*_abstract(config, precision))


def abstract_mimi(config: MimiConfig) -> Mimi:
    """A codec that holds shapes in place of parameters."""
    return nnx.merge(*_abstract(config, Precision.f32()))


def abstract_params(config: MoshiConfig | MimiConfig) -> Params:
    """The parameter tree of a model, shapes in place of arrays."""
    return split(nnx.merge(*_abstract(config, Precision.f32())))[1]


def rules_of(config: MoshiConfig | MimiConfig) -> list[Rule | Derived]:
    """The rule table of a model, of its adapters too if it has some."""
    if isinstance(config, MimiConfig):
        return mimi_rules(config)
    return [*moshi_rules(config), *(lora_rules(config) if config.lora else ())]


@dataclass(frozen=True)
class Source:
    """The weights of a model, read on demand.

    Attributes:
      tensors: shape and format of each tensor under its released name.
      read: the values of a tensor in that shape and format.
      tree: the values as our tree; takes the format of the leaves (None keeps the stored one) and
        what puts each finished leaf in its place.
      num_leaves: how many leaves that tree has.
      metadata: free text entries of the released file.
    """

    tensors: dict[str, TensorInfo]
    read: Callable[[str], np.ndarray]
    tree: Callable[[np.dtype | None, Place], Params]
    num_leaves: int
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def formats(self) -> Formats:
        """The format of each tensor."""
        return {key: info.format for key, info in self.tensors.items()}

    def recast(self, formats: Mapping[str, str]) -> Source:
        """The same values in other formats, rounded to nearest even where they are narrower."""
        tensors = {k: replace(info, format=formats[k]) for k, info in self.tensors.items()}

        def read(key: str) -> np.ndarray:
            return self.read(key).astype(FLOATS[formats[key]], copy=False)

        return replace(self, tensors=tensors, read=read)

    def write(self, path: Path, tick: Callable[[], None] = lambda: None) -> None:
        """Writes a safetensors file, calling `tick` after each tensor."""

        def read(key: str) -> np.ndarray:
            tensor = self.read(key)
            tick()
            return tensor

        write_safetensors(path, self.tensors, read, self.metadata)


def memory_source(
    config: MoshiConfig | MimiConfig, params: Params, shapes: Params, *, subject: str
) -> Source:
    """Parameters in memory, each tensor in the format of its leaves.

    Raises:
      ConversionError: the parameters are not those of `config`.
    """
    release = _release_plan(config, shapes)
    leaves = check_tree(release, params, subject=subject)
    formats = leaf_formats(release, leaves)

    def tree(dtype: np.dtype | None, place: Place) -> Params:
        return jax.tree.map(
            lambda leaf: place(leaf.astype(dtype or leaf.dtype, copy=False)), params
        )

    return Source(
        _tensors(release, formats),
        lambda key: make_tensor(release, key, leaves, formats[key]),
        tree,
        len(leaves),
    )


@contextmanager
def open_source(
    checkpoint: Checkpoint, part: Part, shapes: Params
) -> Generator[Source, None, None]:
    """Opens the weights of a part of a checkpoint folder; `shapes` is its abstract tree.

    Raises:
      ConversionError: the weights do not fit the config, are broken, or are no checkpoint.
      FileNotFoundError: they are not there.
    """
    config, path = checkpoint.config(part), checkpoint.weights(part)
    if checkpoint.is_jax:
        formats, metadata = _read_conversion(checkpoint.directory, part)
        source = memory_source(config, restore_tree(path), shapes, subject=str(path))
        yield replace(source.recast(formats), metadata=metadata)
        return
    with SafetensorsFile(path) as file:
        release = _release_plan(config, shapes)
        stored = plan(rules_of(config), release.leaf_shapes, file.tensors, subject=str(path))
        yield _file_source(file, stored, release, shapes)


def _file_source(file: SafetensorsFile, stored: Plan, release: Plan, shapes: Params) -> Source:
    formats = stored_formats(stored, file.tensors, release)
    home = {
        (link.path, link.path_part): (key, link.key_part)
        for key, links in stored.tensors.items()
        for link in links
    }

    def read(key: str) -> np.ndarray:
        if key in stored.tensors:
            return file.read(key)
        # The file has other names: join its blocks, in the format that holds all of them.
        blocks = [file.read(*home[link.path, link.path_part]) for link in release.tensors[key]]
        return np.concatenate([block.astype(FLOATS[formats[key]], copy=False) for block in blocks])

    def tree(dtype: np.dtype | None, place: Place) -> Params:
        return read_tree(stored, file, shapes, dtype=dtype, place=place)

    return Source(_tensors(release, formats), read, tree, len(stored.leaf_shapes), file.metadata)


def _release_plan(config: MoshiConfig | MimiConfig, shapes: Params) -> Plan:
    return plan(rules_of(config), {path: leaf.shape for path, leaf in flatten(shapes).items()})


def _tensors(release: Plan, formats: Formats) -> dict[str, TensorInfo]:
    return {key: TensorInfo(shape, formats[key]) for key, shape in release.tensor_shapes.items()}


def _read_conversion(folder: Path, part: Part) -> tuple[Formats, dict[str, str]]:
    try:
        entry = json.loads((folder / CONVERSION_NAME).read_text())[part]
        return dict(entry["formats"]), dict(entry["metadata"])
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{CONVERSION_NAME} does not describe {part!r}; convert the release again"
        raise ConversionError([problem], subject=str(folder)) from error
