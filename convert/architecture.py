"""What the models of a checkpoint look like, whoever says so.

`config.json` says it, or a file given beside the checkpoint (`--arch`), or nobody: PersonaPlex as
published (and the first Moshi) has weights only. Their names tell the family; what shapes cannot
tell, heads and context, comes from the one released size of that family.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convert.safetensors_io import TensorInfo
from helium_jax import MoshiConfig, as_personaplex, helium_2b, moshi_7b, personaplex_7b
from mimi_jax import MimiConfig, mimi_24khz

_CONFIG = "config.json"
# Keys of a config.json that say nothing about shapes.
_SILENT = frozenset({"model_type", "version", "model_id", "lm_gen_config"})


@dataclass(frozen=True)
class Architecture:
    """Shapes of both models.

    Attributes:
      lm: the language model.
      mimi: the codec, with as many codebooks in use as the language model needs.
      recorded: the JSON object to keep with a converted checkpoint whose config does not say it.
    """

    lm: MoshiConfig
    mimi: MimiConfig
    recorded: Mapping[str, Any] | None = None


def says_architecture(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` describes a model; the one beside PersonaPlex only names it."""
    return any(key not in _SILENT and not key.endswith("_name") for key in config)


def used_codebooks(lm: MoshiConfig) -> int:
    """Codebooks K of one speaker: what the model generates, or hears.

    A model that generates all it hears plays both speakers. Source: `get_mimi` of moshi 0.2.13,
    which does not know that case (it would take 16 for PersonaPlex).
    """
    if lm.n_q == 0:
        return 8  # a text model has no use for a codec
    return lm.n_q // 2 if lm.dep_q == lm.n_q else max(lm.dep_q, lm.n_q - lm.dep_q)


def from_arch_file(values: Mapping[str, Any]) -> Architecture:
    """Reads `{"lm": {...}, "mimi": {...}, "num_codebooks_mimi": 8}`; the last two may be absent.

    `lm` has the keys of Kyutai's `config.json`, `mimi` those of `mimi_config.json`.

    Raises:
      ValueError: a key is missing or unknown, or asks for what is not implemented.
    """
    if unknown := sorted(set(values) - {"lm", "mimi", "num_codebooks_mimi"}):
        raise ValueError(f"got unknown keys {', '.join(unknown)}, expected lm and mimi")
    if not isinstance(values.get("lm"), Mapping):
        raise ValueError('got no object "lm", expected one with the keys of a config.json')
    lm = lm_from_config(values["lm"])
    books = values.get("num_codebooks_mimi", used_codebooks(lm))
    return Architecture(lm, mimi_from_config(values.get("mimi"), lm, books), dict(values))


# What must be whole numbers, and from where on; None is left to whoever knows its meaning.
_FROM_ONE = (
    "dim", "text_card", "text_card_out", "card", "num_heads", "num_layers", "context", "kv_repeat",
    "depformer_dim", "depformer_dim_feedforward", "depformer_num_heads", "depformer_num_layers",
    "depformer_kv_repeat", "depformer_low_rank_embeddings", "extra_heads_dim",
)  # fmt: skip
_FROM_ZERO = ("n_q", "dep_q", "extra_heads_num_heads", "existing_text_padding_id")
_MAY_BE_NONE = ("text_card_out", "depformer_dim_feedforward", "depformer_low_rank_embeddings")


def _wrong_numbers(values: Mapping[str, Any]) -> list[str]:
    problems = []
    for first, keys in ((1, _FROM_ONE), (0, _FROM_ZERO)):
        for key in keys:
            if key not in values or (values[key] is None and key in _MAY_BE_NONE):
                continue
            if type(values[key]) is not int or values[key] < first:
                got = values[key]
                problems.append(f"{key!r} is {got!r}, expected a whole number from {first} on")
    for key in ("hidden_scale", "max_period"):
        if key in values and (type(values[key]) not in (int, float) or not values[key] > 0):
            problems.append(f"{key!r} is {values[key]!r}, expected a number above 0")
    for key in ("delays", "depformer_weights_per_step_schedule"):
        numbers = values.get(key)
        if numbers is not None and not (
            isinstance(numbers, list | tuple) and all(type(n) is int for n in numbers)
        ):
            problems.append(f"{key!r} is {numbers!r}, expected whole numbers")
    return problems


def lm_from_config(values: Mapping[str, Any]) -> MoshiConfig:
    """The language model of a `config.json`, run as the code does that it was trained by.

    Who generates all it hears comes from the PersonaPlex fork.

    Raises:
      ValueError: a key is missing or unknown, or asks for what is not implemented.
    """
    if problems := _wrong_numbers(values):
        raise ValueError(f"model config: {'; '.join(problems)}")
    config = MoshiConfig.from_dict({**values, "quantize": False})  # weights say it themselves
    if values.get("model_type") == "helium":
        config = replace(config, text_initial=helium_2b().text_initial)
    return as_personaplex(config) if config.dep_q == config.n_q > 0 else config


def mimi_from_config(
    values: Mapping[str, Any] | None, lm: MoshiConfig, codebooks: int | None = None
) -> MimiConfig:
    """The codec of a `mimi_config.json` (None for the released one) as `lm` needs it.

    Raises:
      ValueError: a key is missing or unknown, or asks for what is not implemented.
    """
    books = codebooks or used_codebooks(lm)
    if values is None:
        mimi = mimi_24khz(books)
        return replace(mimi, transformer=replace(mimi.transformer, ring=lm.ring))
    return MimiConfig.from_dict(values, num_codebooks=books, ring=lm.ring)


def from_tensors(tensors: Mapping[str, TensorInfo]) -> Architecture:
    """The released model of the family to which these tensors belong.

    Raises:
      ValueError: they belong to none, or to another size of one.
    """
    steps = sum(f"depformer_in.{k}.weight" in tensors for k in range(len(tensors)))
    presets = {8: moshi_7b(), 16: personaplex_7b()}
    lm = presets.get(steps)
    if lm is None:
        raise ValueError(
            f"no {_CONFIG} says what the model looks like, and weights with {steps} depth steps are"
            " neither Moshi 7B (8) nor PersonaPlex 7B (16); give its shapes with --arch FILE.json"
        )
    width = tensors["out_norm.alpha"].shape[-1:] if "out_norm.alpha" in tensors else ()
    if width != (lm.dim,):
        raise ValueError(
            f"no {_CONFIG} says what the model looks like, and its width {list(width)} is not that"
            f" of the released one ({lm.dim}); shapes do not tell heads and context: give them with"
            " --arch FILE.json"
        )
    return Architecture(lm, mimi_from_config(None, lm), {"lm": lm.to_dict()})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      ValueError: there is none.
    """
    if not path.is_file():
        raise ValueError("got no such file, expected a JSON object")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"got a JSON {type(values).__name__}, expected an object")
    return values
