"""One view of weights wherever they are: tensors under their released names, or our tree."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from convert.checkpoint import CONVERSION_NAME, Checkpoint, Part
from convert.errors import ConversionError, describe
from convert.foreign import refuse_tensors
from convert.layouts import as_released
from convert.mimi import mimi_rules
from convert.moshi import lora_rules, moshi_rules
from convert.orbax_io import StoredLeaves
from convert.rules import Derived, Plan, Rule, dotted, flatten, plan
from convert.safetensors_io import (
    FLOATS,
    TensorInfo,
    Tensors,
    file_order,
    write_safetensors,
)
from convert.shards import open_weights, write_shards
from convert.tree import (
    Formats,
    all_finite,
    check_leaves,
    leaf_formats,
    make_tensor,
    read_leaves,
    stored_formats,
)
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


def release_shapes(config: MoshiConfig | MimiConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of a released file of such a model: names and shapes."""
    return _release_plan(config, abstract_params(config)).tensor_shapes


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
      leaves: the values as the leaves of our tree, one at a time with their key paths; takes their
        format, None keeps the stored one.
      shapes: that tree, abstract.
      metadata: free text entries of the released file.
      foreign: the file has another layout than a release; the same tensors, by other names.
    """

    tensors: dict[str, TensorInfo]
    read: Callable[[str], np.ndarray]
    leaves: Callable[[np.dtype | None], Iterator[tuple[Any, np.ndarray]]]
    shapes: Params
    metadata: Mapping[str, str] = field(default_factory=dict)
    foreign: bool = False

    @property
    def num_leaves(self) -> int:
        """How many leaves our tree has."""
        return len(jax.tree.leaves(self.shapes))

    @property
    def formats(self) -> Formats:
        """The format of each tensor."""
        return {key: info.format for key, info in self.tensors.items()}

    def tree(self, dtype: np.dtype | None, place: Place) -> Params:
        """The values as our tree; `place` is called with each finished leaf."""
        leaves = [place(leaf) for _, leaf in self.leaves(dtype)]
        return jax.tree.unflatten(jax.tree.structure(self.shapes), leaves)

    def recast(self, formats: Mapping[str, str]) -> Source:
        """The same values in other formats, rounded to nearest even where they are narrower."""
        tensors = {k: replace(info, format=formats[k]) for k, info in self.tensors.items()}

        def read(key: str) -> np.ndarray:
            return self.read(key).astype(FLOATS[formats[key]], copy=False)

        return replace(self, tensors=tensors, read=read)

    def write(
        self,
        path: Path,
        tick: Callable[[], None] = lambda: None,
        *,
        max_bytes: int | None = None,
    ) -> None:
        """Writes a safetensors file, or several of `max_bytes`, calling `tick` after each tensor.

        Raises:
          ConversionError: naming every tensor with a NaN or an infinity; no file is left.
        """
        broken: list[str] = []

        def read(key: str) -> np.ndarray:
            tensor = self.read(key)
            if not all_finite(tensor):
                broken.append(key)
            tick()
            return tensor

        def check() -> None:
            if broken:
                problems = describe("not finite:", ((key, "") for key in broken))
                raise ConversionError(problems, subject=path.name)

        if max_bytes is None:
            write_safetensors(path, self.tensors, read, self.metadata, check)
        else:
            write_shards(path, self.tensors, read, self.metadata, max_bytes)
            check()


def memory_source(
    config: MoshiConfig | MimiConfig, params: Params, shapes: Params, *, subject: str
) -> Source:
    """Parameters in memory, each tensor in the format of its leaves.

    Raises:
      ConversionError: the parameters are not those of `config`.
    """
    leaves = flatten(params)
    return _leaves_source(config, leaves, leaves, shapes, subject)


def _leaves_source(
    config: MoshiConfig | MimiConfig,
    abstract: Mapping[str, Any],
    values: Mapping[str, Any],
    shapes: Params,
    subject: str,
) -> Source:
    """Leaves by path: their shapes and formats, and where to get their values."""
    release = _release_plan(config, shapes)
    check_leaves(release, abstract, subject=subject)
    formats = leaf_formats(release, abstract)

    def leaves(dtype: np.dtype | None) -> Iterator[tuple[Any, np.ndarray]]:
        for keys, _ in jax.tree_util.tree_leaves_with_path(shapes):
            leaf = values[dotted(keys)]
            yield keys, leaf.astype(dtype or leaf.dtype, copy=False)

    def read(key: str) -> np.ndarray:
        return make_tensor(release, key, values, formats[key])

    return Source(_tensors(release, formats), read, leaves, shapes)


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
        stored = StoredLeaves(path)
        source = _leaves_source(config, stored.shapes, stored, shapes, str(path))
        release = _release_plan(config, shapes)
        stored.arrange(link.path for key in file_order(formats) for link in release.tensors[key])
        yield replace(source.recast(formats), metadata=metadata)
        return
    with open_weights(path) as file:
        refuse_tensors(file.tensors, subject=str(path))
        release, seen = _release_plan(config, shapes), as_released(file, config)
        made = plan(rules_of(config), release.leaf_shapes, seen.tensors, subject=str(path))
        source = _file_source(seen, made, release, shapes, str(path))
        yield replace(source, metadata=file.metadata, foreign=seen is not file)


def _file_source(
    file: Tensors,
    stored: Plan,
    release: Plan,
    shapes: Params,
    subject: str,
) -> Source:
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

    def leaves(dtype: np.dtype | None) -> Iterator[tuple[Any, np.ndarray]]:
        return read_leaves(stored, file, shapes, dtype=dtype, subject=subject)

    return Source(_tensors(release, formats), read, leaves, shapes)


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
