"""A checkpoint folder in, a session ready to talk out."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from convert import load_mimi, load_moshi, read_configs
from helium_jax import DuplexSession, Sampler, Sampling, TextTokenizer, condition_rows
from layers_jax import Precision

__all__ = ["PRECISIONS", "PrecisionName", "load", "released_sampling"]

# What commands call them; int8 is for matrices, everything else is bf16 then.
PrecisionName = Literal["f32", "bf16", "int8"]
PRECISIONS: Mapping[PrecisionName | None, Precision | None] = {
    None: None,
    "f32": Precision.f32(),
    "bf16": Precision.bf16(),
    "int8": Precision.int8_weights(),
}


def load(
    directory: str | os.PathLike[str],
    *,
    batch: int = 1,
    precision: Precision | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    arch: str | os.PathLike[str] | None = None,
    conditions: Mapping[str, str | None] | None = None,
    row_ids: Sequence[int] | None = None,
) -> DuplexSession:
    """Loads a checkpoint folder and joins its codec and its language model.

    Args:
        directory: a release as Kyutai publishes it, or what `moshi-jax convert to-jax` made of one.
        batch: sessions B that run side by side.
        precision: number formats of the language model; None keeps those of the folder.
        sampling: how tokens are drawn; None does as the release recommends.
        seed: of all draws.
        arch: JSON file with the shapes of a model that the folder does not describe.
        conditions: what all sessions are conditioned on, a value or None for each condition that
            the model has.
        row_ids: what tells the sessions' draws apart, 0..B-1 by default; equal ids draw alike.

    Raises:
        ConversionError: a file of the folder is missing or cannot be used; all problems in a line.
        ValueError: the release recommends a way of sampling that is not implemented.
    """
    checkpoint = read_configs(directory, arch=arch)
    if sampling is None:
        sampling = released_sampling(checkpoint.lm_gen_config)
    rows = condition_rows(checkpoint.lm.conditioners, [conditions or {}] * batch)
    lm, lm_params = load_moshi(directory, precision=precision, arch=arch)
    mimi, mimi_params = load_mimi(directory, arch=arch)
    tokenizer = TextTokenizer(checkpoint.tokenizer) if checkpoint.tokenizer.is_file() else None
    return DuplexSession(
        mimi,
        mimi_params,
        lm,
        lm_params,
        batch=batch,
        sampling=sampling,
        seed=seed,
        tokenizer=tokenizer,
        conditions=rows if checkpoint.lm.conditioners else None,
        row_ids=row_ids,
    )


def released_sampling(settings: Mapping[str, Any]) -> Sampling:
    """The `lm_gen_config` of a release as a `Sampling`, completed with the reference's defaults.

    Source: the arguments of `LMGen` in moshi/models/lm.py; a `top_k` of 0 keeps every token.

    Raises:
        ValueError: a setting is unknown here, so tokens would be drawn differently than released.
    """
    known = {"use_sampling", "temp", "temp_text", "top_k", "top_k_text"}
    if unknown := sorted(settings.keys() - known):
        raise ValueError(
            f"lm_gen_config has {', '.join(unknown)}, expected only {', '.join(sorted(known))}; "
            "pass `sampling` to choose it yourself"
        )
    if not settings.get("use_sampling", True):
        return Sampling.greedy()
    default = Sampling()
    return Sampling(
        text=_sampler(settings, "_text", default.text),
        audio=_sampler(settings, "", default.audio),
    )


def _sampler(settings: Mapping[str, Any], suffix: str, default: Sampler) -> Sampler:
    top_k = settings.get(f"top_k{suffix}", default.top_k)
    temperature = settings.get(f"temp{suffix}", default.temperature)
    return Sampler(temperature=temperature, top_k=top_k or None)
