"""Checks of a language model recording."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import helium_jax
from convert import params_from_tensors
from helium_jax import Moshi, MoshiConfig, Sampler, Sampling, StepOutput, forward, step
from layers_jax import Precision, reset_rows
from layers_jax.functional import Params, abstract
from moshi_jax.verify.check import Check, close, equal, equal_rows
from moshi_jax.verify.recording import Recording

TEXT_TOLERANCE, AUDIO_TOLERANCE = 1e-4, 2e-3  # audio logits have no final norm: they reach 40
BF16_RMS, BF16_MAX = 0.02, 0.15  # of the logits' standard deviation


def check_language_model(recording: Recording) -> Iterator[Check]:
    """Compares free runs token for token, and the teacher-forced forward in f32 and bf16."""
    config = MoshiConfig.from_dict(recording.config, ring=recording.ring)
    lm, params = _load(config, recording, Precision.f32())
    runs = recording.runs
    if "greedy" in runs:
        user = recording.tensors["inputs/user"]
        expected = recording.expected("greedy")
        out = run(lm, params, {"user": user})
        margin = np.minimum(
            expected["text_margin"].min(axis=-1), expected["audio_margin"].min(axis=(-1, -2))
        )
        valid = expected["valid"]
        yield equal_rows("greedy", np.asarray(out.tokens), expected["out"], valid, margin)
        ready = np.asarray(out.valid)[:, 0]
        yield equal("greedy valid", ready, valid, np.ones(valid.shape, bool))
    if "batch" in runs:
        inputs, expected = recording.inputs("batch"), recording.expected("batch")
        out = run(lm, params, inputs)
        everywhere = np.ones(len(expected["out"]), bool)
        yield equal_rows("batch", np.asarray(out.tokens), expected["out"], everywhere, None)
    if "reset_in_sync" in runs:  # the reference silences the whole batch while one row restarts
        expected = recording.expected("reset_in_sync")
        out = run(lm, params, recording.inputs("reset_in_sync"))
        tokens, valid = np.asarray(out.tokens), expected["valid"]
        yield equal_rows("reset_in_sync", tokens, expected["out"], valid, None)
    for name in sorted(run_name for run_name in runs if run_name.startswith("sampled")):
        options = recording.provenance["options"][name]
        expected = recording.expected(name)
        out = run(lm, params, recording.inputs(name), _sampling(options))
        tokens = np.asarray(out.tokens)
        yield equal_rows(name, tokens, expected["out"], expected["valid"], None)
    for name in ("forward", "forward_masked"):
        if name in runs:
            codes = recording.tensors[f"inputs/{name}/codes"]
            yield from check_forward(recording.expected(name), name, lm, params, codes)
    if "forward_bf16" in runs:
        lm16, params16 = _load(config, recording, Precision.bf16())
        codes = recording.tensors["inputs/forward/codes"]
        got = np.asarray(_forward(lm16, params16, codes).text, np.float64)
        expected = recording.expected("forward_bf16")["text_logits"][:, 0]
        error, scale = got - expected, expected.std()
        rms, worst = np.sqrt(np.mean(error**2)) / scale, np.abs(error).max() / scale
        text = f"bf16 text logits rms {rms:.3f} max {worst:.3f} of their deviation"
        yield Check(bool(rms < BF16_RMS and worst < BF16_MAX), text)


def run(
    lm: Moshi,
    params: Params,
    inputs: Mapping[str, Any],
    sampling: Sampling | None = None,
) -> StepOutput:
    """Steps through recorded calls in one scan; outputs have a leading call axis.

    Args:
      lm: the model.
      params: its parameters.
      inputs: `user` [S, B, U]; optionally `exec_mask` and `reset_mask` [S, B] (reset comes first),
        `noise_text` [S, B, R] and `noise_audio` [S, B, Q, R].
      sampling: greedy by default.
    """
    calls_count, batch, _ = inputs["user"].shape
    fresh = helium_jax.init_state(lm, batch)
    mask = inputs.get("exec_mask", np.ones((calls_count, batch), bool))
    reset = inputs.get("reset_mask", np.zeros((calls_count, batch), bool))
    noise = (inputs["noise_text"], inputs["noise_audio"]) if "noise_text" in inputs else None

    def body(state: helium_jax.MoshiState, call: tuple) -> tuple:
        user, mask, reset, noise = call
        state = reset_rows(reset, fresh, state)
        return step(
            lm,
            params,
            state,
            user,
            sampling=sampling or Sampling.greedy(),
            exec_mask=mask,
            noise=noise,
        )

    calls = jax.tree.map(jnp.asarray, (inputs["user"], mask, reset, noise))
    return jax.jit(lambda calls: jax.lax.scan(body, fresh, calls)[1])(calls)


def definition(config: MoshiConfig, precision: Precision) -> Moshi:
    """The model that a config describes, holding shapes only."""
    return abstract(lambda: Moshi(config, precision=precision, rngs=nnx.Rngs(0)))


def _load(config: MoshiConfig, recording: Recording, precision: Precision) -> tuple[Moshi, Params]:
    params = params_from_tensors(config, recording.weights, dtype=precision.params)
    return definition(config, precision), params


def _sampling(options: Mapping[str, Any]) -> Sampling:
    return Sampling(
        text=Sampler(temperature=options["temp_text"], top_k=options["top_k_text"]),
        audio=Sampler(temperature=options["temp"], top_k=options["top_k"]),
    )


def _forward(lm: Moshi, params: Params, codes: np.ndarray) -> helium_jax.Logits:
    return jax.jit(lambda params, codes: forward(lm, params, codes))(params, jnp.asarray(codes))


def check_forward(
    expected: Mapping[str, np.ndarray], name: str, lm: Moshi, params: Params, codes: np.ndarray
) -> Iterator[Check]:
    """Compares logits and masks of the teacher-forced forward of `codes`; a mask may be absent."""
    logits = _forward(lm, params, codes)
    for kind, limit, got, mask in (
        ("text", TEXT_TOLERANCE, logits.text[:, None], logits.text_mask[:, None]),
        ("audio", AUDIO_TOLERANCE, logits.audio, logits.audio_mask),
    ):
        wanted = expected[f"{kind}_logits"]
        recorded = f"{kind}_mask" in expected
        known = expected[f"{kind}_mask"] if recorded else np.asarray(mask)
        got = np.where(known[..., None], np.asarray(got), 0)
        yield close(f"{name} {kind}", got, np.where(known[..., None], wanted, 0), limit)
        if recorded:
            everywhere = np.ones(known.shape, bool)
            yield equal(f"{name} {kind} mask", np.asarray(mask), known, everywhere)
