"""What a checkpoint is, told from its headers: family, sizes, formats, and what is unusual."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from math import prod
from typing import Any

from convert.checkpoint import read_configs
from convert.errors import ConversionError
from convert.files import MERGED_NAME
from convert.foreign import refuse_tensors
from convert.layouts import as_released, layout_of
from convert.rules import flatten, plan
from convert.shards import open_weights
from convert.sources import abstract_params, open_source, rules_of
from convert.voices import voice_names
from helium_jax import MoshiConfig, moshi_7b, personaplex_7b
from mimi_jax import MimiConfig

_LAYOUTS = {
    "kyutai": "Kyutai's",
    "q8": "Kyutai's with int8 weights (bitsandbytes)",
    "moshi": "transformers' Moshi",
    "mimi": "transformers' Mimi",
    "helium": "transformers' Helium",
}


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found.

    Attributes:
      family: name of the kind of model.
      config: its shapes by the keys of `config.json`.
      parameters: number of values of each part, by the first name of its tensors.
      formats: number of tensors of each number format.
      num_bytes: size of all tensors.
      voices: names of the voices beside it.
      unusual: what one would want to know before using it.
    """

    family: str
    config: dict[str, Any]
    parameters: dict[str, int]
    formats: dict[str, int]
    num_bytes: int
    voices: list[str]
    unusual: list[str]

    def lines(self) -> list[str]:
        """The text of `convert inspect`."""
        shown = {key: value for key, value in self.config.items() if value is not None}
        width = max(map(len, [*self.parameters, "total"]), default=0)
        counts = [f"  {name:<{width}} {count:>16,}" for name, count in self.parameters.items()]
        formats = ", ".join(f"{count} {name}" for name, count in self.formats.items())
        return [
            f"family   {self.family}",
            f"config   {', '.join(f'{key} {value}' for key, value in shown.items())}",
            "parameters",
            *counts,
            f"  {'total':<{width}} {sum(self.parameters.values()):>16,}",
            f"tensors  {formats}",
            f"size     {self.num_bytes / 1e9:.3f} GB",
            *([f"voices   {', '.join(self.voices)}"] if self.voices else []),
            *(f"unusual  {text}" for text in self.unusual),
        ]


def inspect(
    source: str | os.PathLike[str], *, arch: str | os.PathLike[str] | None = None
) -> Inspection:
    """Looks at a checkpoint without reading its values.

    Raises:
      ConversionError: it is none, or one that cannot be converted.
    """
    found = read_configs(source, arch=arch)
    sizes, formats = defaultdict(int), Counter()
    unusual, num_bytes = [], 0
    for part in found.parts:
        config = found.config(part)
        if found.is_jax:
            with open_source(found, part, abstract_params(config)) as opened:
                tensors = dict(opened.tensors)
        else:
            with open_weights(found.weights(part)) as file:
                refuse_tensors(file.tensors, subject=str(found.weights(part)))
                unusual += _about(part, layout_of(file.tensors))
                tensors = as_released(file, config).tensors
            unusual += _misfits(config, tensors, part)
        for key, info in tensors.items():
            name = "mimi" if part == "mimi" else key.split(".")[0]
            sizes[name] += prod(info.shape)
            formats[info.format] += 1
            num_bytes += prod(info.shape) * (2 if info.format in ("BF16", "F16") else 4)
    lm = found.lm
    if found.recorded is not None:
        unusual.append("no config.json says its shapes")
    if "moshi" in found.parts and found.parts != ["moshi", "mimi"]:
        unusual.append("no codec beside it")
    merged = not found.is_jax and found.files.get("moshi_name", found.directory).name == MERGED_NAME
    if merged:
        unusual.append(f"weights are in {MERGED_NAME}, as moshi-finetune writes them")
    if set(formats) > {"BF16", "F32"} or formats.get("F16"):
        unusual.append(f"number formats: {', '.join(sorted(formats))}")
    return Inspection(
        family=family(found.lm) if "moshi" in found.parts else "Mimi codec",
        config={} if "moshi" not in found.parts else lm.to_dict(),
        parameters=dict(sizes),
        formats=dict(formats.most_common()),
        num_bytes=num_bytes,
        voices=voice_names(found.directory),
        unusual=unusual,
    )


def family(lm: MoshiConfig) -> str:
    """Name of the kind of a language model."""
    if lm.n_q == 0:
        return "Helium text model"
    if lm.dep_q == 0:
        return "speech to text"
    if lm.reads_eos_as_pad:
        return "Hibiki"
    if lm.timing == "personaplex":
        return "PersonaPlex 7B" if lm == personaplex_7b() else "PersonaPlex"
    return "Moshi 7B" if lm == moshi_7b() else "Moshi"


def _about(part: str, layout: str) -> list[str]:
    return [] if layout == "kyutai" else [f"{part}: layout is {_LAYOUTS[layout]}"]


def _misfits(config: MoshiConfig | MimiConfig, tensors: Any, part: str) -> list[str]:
    leaves = {path: leaf.shape for path, leaf in flatten(abstract_params(config)).items()}
    try:
        plan(rules_of(config), leaves, tensors)
    except ConversionError as error:
        return [f"{part} cannot be converted: {problem}" for problem in error.problems]
    return []
