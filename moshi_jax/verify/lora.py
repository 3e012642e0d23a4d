"""Checks of a recording with adapters: beside their kernels, and fused into them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import ml_dtypes
import numpy as np

from convert import lora_from_tensors, params_from_tensors
from convert.sources import abstract_params, memory_source
from helium_jax import MoshiConfig
from layers_jax import Precision, fuse, merge_adapters
from layers_jax.functional import Params
from moshi_jax.verify.check import Check, close, equal_rows
from moshi_jax.verify.language_model import check_forward
from moshi_jax.verify.recording import Recording
from moshi_jax.verify.runs import definition, read_config, run

FUSED_TOLERANCE = 1e-6  # f32: one order of additions against another


def check_lora(recording: Recording) -> Iterator[Check]:
    """Tokens and logits with adapters unfused and fused, and the fused weights themselves."""
    config = read_config(recording)
    if config.lora is None:
        raise ValueError(f"{recording.name} has adapters, expected a config with 'lora': true")
    plain = replace(config, lora=None)
    base = params_from_tensors(plain, recording.weights)
    unfused = merge_adapters(lora_from_tensors(config, recording.adapters, dtype="float32"), base)
    fused = fuse(unfused, config.lora.scaling)
    f32 = Precision.f32()
    for name, lm, params in (
        ("unfused", definition(config, f32), unfused),
        ("fused", definition(plain, f32), fused),
    ):
        if name not in recording.runs:
            continue
        expected = recording.expected(name)
        out = run(lm, params, {"user": recording.tensors["inputs/user"]})
        tokens = np.asarray(out.tokens)
        yield equal_rows(name, tokens, expected["out"], expected["valid"], None)
        codes = recording.tensors["inputs/forward/codes"]
        yield from check_forward(expected, name, lm, params, codes)
    if "fused_weights_f32" in recording.runs:
        yield _weights("fused_weights_f32", recording, plain, fused, FUSED_TOLERANCE)
    if "fused_weights_bf16" in recording.runs:
        half = ml_dtypes.bfloat16
        base = params_from_tensors(plain, recording.weights, dtype=half)
        adapters = lora_from_tensors(config, recording.adapters, dtype=half)
        fused = fuse(merge_adapters(adapters, base), config.lora.scaling)
        yield _ulps("fused_weights_bf16", recording, plain, fused)


def _tensors(config: MoshiConfig, params: Params, names: Mapping[str, np.ndarray]) -> dict:
    source = memory_source(config, params, abstract_params(config), subject="fused parameters")
    return {name: source.read(name) for name in names}


def _weights(
    run_name: str, recording: Recording, config: MoshiConfig, params: Params, limit: float
) -> Check:
    expected = recording.expected(run_name)
    got = _tensors(config, params, expected)
    worst = max(expected, key=lambda name: np.abs(got[name] - expected[name]).max())
    return close(run_name, got[worst], expected[worst], limit)


def _ulps(run_name: str, recording: Recording, config: MoshiConfig, params: Params) -> Check:
    """Distance in representable bf16 numbers: at most one, where a sum lies between two."""
    expected = recording.expected(run_name)
    got = _tensors(config, params, expected)
    worst = max(int(np.abs(_rank(got[name]) - _rank(expected[name])).max()) for name in expected)
    return Check(worst <= 1, f"{run_name} {worst} bf16 steps (limit 1)")


def _rank(values: np.ndarray) -> np.ndarray:
    """The position of each bf16 number among all of them."""
    bits = np.ascontiguousarray(values).view(np.int16).astype(np.int32)
    return np.where(bits < 0, -(bits & 0x7FFF), bits)
