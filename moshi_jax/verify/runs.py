"""Recorded calls, repeated as one scan of the step."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import helium_jax
from convert import params_from_tensors
from helium_jax import (
    Given,
    Moshi,
    MoshiConfig,
    MoshiState,
    Sampler,
    Sampling,
    StepOutput,
    as_personaplex,
    forward,
    step,
)
from layers_jax import Precision, reset_rows
from layers_jax.functional import Params, abstract
from moshi_jax.verify.recording import Recording


def read_config(recording: Recording, **changes: Any) -> MoshiConfig:
    """The recorded model, run as the program that was recorded does."""
    kind = recording.provenance.get("model_type", "moshi")
    config = MoshiConfig.from_dict({**recording.config, **changes, "model_type": kind})
    return as_personaplex(config) if recording.ring == "personaplex" else config


def load(
    config: MoshiConfig, recording: Recording, precision: Precision | None = None
) -> tuple[Moshi, Params]:
    """The recorded model in f32 unless said otherwise."""
    precision = precision or Precision.f32()
    params = params_from_tensors(config, recording.weights, dtype=precision.params)
    return definition(config, precision), params


def definition(config: MoshiConfig, precision: Precision) -> Moshi:
    """The model that a config describes, holding shapes only."""
    return abstract(lambda: Moshi(config, precision=precision, rngs=nnx.Rngs(0)))


def read_sampling(options: Mapping[str, Any]) -> Sampling:
    """How a recorded run drew its tokens."""
    return Sampling(
        text=Sampler(temperature=options["temp_text"], top_k=options["top_k_text"]),
        audio=Sampler(temperature=options["temp"], top_k=options["top_k"]),
    )


def run(
    lm: Moshi,
    params: Params,
    inputs: Mapping[str, Any],
    sampling: Sampling | None = None,
    *,
    state: MoshiState | None = None,
    conditions: np.ndarray | None = None,
) -> StepOutput:
    """Steps through recorded calls; outputs have a leading call axis.

    Args:
      lm: the model.
      params: its parameters.
      inputs: `calls` and `batch` of a run without a user, else `user` [S, B, U]; optionally `text`
        [S, B] and `agent` [S, B, Q] as given, `exec_mask` and `reset_mask` [S, B] (reset comes
        first), `noise_text` [S, B, R] and `noise_audio` [S, B, Q, R].
      sampling: greedy by default.
      state: to begin with; fresh by default.
      conditions: of each session, or of one for all.
    """
    sampling = sampling or Sampling.greedy()
    user = inputs.get("user")
    count, batch = (inputs["calls"], inputs["batch"]) if user is None else user.shape[:2]
    fresh = helium_jax.init_state(lm, batch, sampling=sampling) if state is None else state
    mask = inputs.get("exec_mask", np.ones((count, batch), bool))
    reset = inputs.get("reset_mask", np.zeros((count, batch), bool))
    noise = (inputs["noise_text"], inputs["noise_audio"]) if "noise_text" in inputs else None
    known = None
    if conditions is not None:
        known = jnp.broadcast_to(conditions, (batch, *conditions.shape[1:]))
    given = Given(text=inputs.get("text"), agent=inputs.get("agent"))

    def body(state: MoshiState, call: tuple) -> tuple[MoshiState, StepOutput]:
        user, mask, reset, noise, given = call
        return step(
            lm,
            params,
            reset_rows(reset, fresh, state),
            user,
            sampling=sampling,
            exec_mask=mask,
            noise=noise,
            given=given,
            conditions=known,
            draw_user=inputs.get("draw_user"),
        )

    calls = jax.tree.map(jnp.asarray, (user, mask, reset, noise, given))
    out = jax.jit(lambda calls: jax.lax.scan(body, fresh, calls)[1])(calls)
    return jax.tree.map(np.asarray, out)


def run_forward(
    lm: Moshi, params: Params, codes: np.ndarray, conditions: np.ndarray | None = None
) -> helium_jax.Logits:
    """Teacher-forced logits of recorded codes."""
    run = jax.jit(lambda params, *inputs: forward(lm, params, *inputs))
    return run(params, jnp.asarray(codes), conditions)
