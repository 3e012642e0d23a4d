"""Checks of a recording of Kyutai's language model."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from helium_jax import Guidance, Moshi, MoshiConfig, Sampling, condition_rows
from layers_jax import Precision, bind
from layers_jax.functional import Params
from moshi_jax.verify.check import Check, close, equal, equal_rows
from moshi_jax.verify.recording import Recording
from moshi_jax.verify.runs import load, read_config, read_sampling, run, run_forward

RUNS = {"greedy", "batch", "reset_in_sync", "cfg", "forward", "forward_masked", "forward_bf16"}
TEXT_TOLERANCE, AUDIO_TOLERANCE = 1e-4, 2e-3  # audio logits have no final norm: they reach 40
CONDITION_TOLERANCE, PROBABILITY_TOLERANCE = 1e-5, 1e-5
BF16_RMS, BF16_MAX = 0.02, 0.15  # of the logits' standard deviation


def check_language_model(recording: Recording) -> Iterator[Check]:
    """Compares free runs token for token, and the teacher-forced forward in f32 and bf16."""
    config = read_config(recording)
    lm, params = load(config, recording)
    runs, conditions = recording.runs, _conditions(recording, config)
    if conditions is not None:
        yield _check_condition(recording.tensors["expected/condition_sum"], lm, params, conditions)
    if "greedy" in runs:
        yield from _check_greedy(recording, lm, params, conditions)
    if "batch" in runs:
        inputs, expected = recording.inputs("batch"), recording.expected("batch")
        out = run(lm, params, inputs, conditions=conditions)
        everywhere = np.ones(len(expected["out"]), bool)
        yield equal_rows("batch", out.tokens, expected["out"], everywhere, None)
    if "reset_in_sync" in runs:  # the reference silences the whole batch while one row restarts
        expected = recording.expected("reset_in_sync")
        inputs = recording.inputs("reset_in_sync")
        out = run(lm, params, inputs, conditions=conditions)
        yield equal_rows("reset_in_sync", out.tokens, expected["out"], expected["valid"], None)
    for name in sorted(run_name for run_name in runs if run_name.startswith("sampled")):
        expected = recording.expected(name)
        sampling = read_sampling(recording.provenance["options"][name])
        out = run(lm, params, recording.inputs(name), sampling, conditions=conditions)
        yield equal_rows(name, out.tokens, expected["out"], expected["valid"], None)
    if "cfg" in runs:
        yield from _check_guidance(recording, config, lm, params)
    for name in ("forward", "forward_masked"):
        if name in runs:
            codes = recording.tensors[f"inputs/{name}/codes"]
            yield from check_forward(recording.expected(name), name, lm, params, codes, conditions)
    if "forward_bf16" in runs:
        yield _check_bf16(recording, config, conditions)


def check_forward(
    expected: Mapping[str, np.ndarray],
    name: str,
    lm: Moshi,
    params: Params,
    codes: np.ndarray,
    conditions: np.ndarray | None = None,
) -> Iterator[Check]:
    """Teacher-forced logits and masks, of whatever a run has recorded."""
    logits = run_forward(lm, params, codes, conditions)
    for kind, limit, got, mask in (
        ("text", TEXT_TOLERANCE, logits.text[:, None], logits.text_mask[:, None]),
        ("audio", AUDIO_TOLERANCE, logits.audio, logits.audio_mask),
    ):
        if f"{kind}_logits" not in expected:
            continue
        mask = np.asarray(mask)
        known = expected.get(f"{kind}_mask", mask)
        got, wanted = (np.where(known[..., None], x, 0) for x in (got, expected[f"{kind}_logits"]))
        yield close(f"{name} {kind}", got, wanted, limit)
        if f"{kind}_mask" in expected:
            everywhere = np.ones(known.shape, bool)
            yield equal(f"{name} {kind} mask", mask, known, everywhere)


def _check_greedy(
    recording: Recording, lm: Moshi, params: Params, conditions: np.ndarray | None
) -> Iterator[Check]:
    expected = recording.expected("greedy")
    out = run(lm, params, {"user": recording.tensors["inputs/user"]}, conditions=conditions)
    margin = expected["text_margin"].min(axis=-1)
    if "audio_margin" in expected:
        margin = np.minimum(margin, expected["audio_margin"].min(axis=(-1, -2)))
    valid = expected["valid"]
    yield equal_rows("greedy", out.tokens, expected["out"], valid, margin)
    yield equal("greedy valid", out.valid[:, 0], valid, np.ones(valid.shape, bool))
    if "extra_heads" in expected:
        got, wanted = out.extra[valid], expected["extra_heads"][valid]
        yield close("extra heads", got, wanted, PROBABILITY_TOLERANCE)


def _conditions(recording: Recording, config: MoshiConfig) -> np.ndarray | None:
    if not config.conditioners:
        return None
    return condition_rows(config.conditioners, [recording.provenance["options"]["condition"]])


def _check_condition(
    expected: np.ndarray, lm: Moshi, params: Params, conditions: np.ndarray
) -> Check:
    got = np.asarray(bind(lm, params).condition(jnp.asarray(conditions)))
    return close("condition", got, expected[:, 0], CONDITION_TOLERANCE)


def _check_guidance(
    recording: Recording, config: MoshiConfig, lm: Moshi, params: Params
) -> Iterator[Check]:
    options, expected = recording.provenance["options"]["cfg"], recording.expected("cfg")
    (name,) = (lut.name for lut in config.conditioners)
    rows = condition_rows(config.conditioners, [{name: v} for v in options["conditions"]])
    yield _check_condition(expected["condition_sum"], lm, params, rows)
    sampling = Sampling.greedy(Guidance(coefficient=options["cfg_coef"]))
    inputs: dict[str, Any] = {"user": recording.tensors["inputs/user"][: options["calls"]]}
    out = run(lm, params, inputs, sampling, conditions=rows[None])
    yield equal_rows("cfg", out.tokens, expected["out"], expected["valid"], None)


def _check_bf16(recording: Recording, config: MoshiConfig, conditions: np.ndarray | None) -> Check:
    lm, params = load(config, recording, Precision.bf16())
    codes = recording.tensors["inputs/forward/codes"]
    got = np.asarray(run_forward(lm, params, codes, conditions).text, np.float64)
    expected = recording.expected("forward_bf16")["text_logits"][:, 0]
    error, scale = got - expected, expected.std()
    rms, worst = np.sqrt(np.mean(error**2)) / scale, np.abs(error).max() / scale
    text = f"bf16 text logits rms {rms:.3f} max {worst:.3f} of their deviation"
    return Check(bool(rms < BF16_RMS and worst < BF16_MAX), text)
