"""Checks of a codec recording."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import mimi_jax
from convert import params_from_tensors
from layers_jax import reset_rows
from layers_jax.functional import Params, abstract
from mimi_jax import Mimi, MimiConfig, decode_step, encode_step
from moshi_jax.verify.check import NEAR_TIE, Check, close, equal
from moshi_jax.verify.recording import Recording

PCM_TOLERANCE = 1e-5


def check_codec(recording: Recording) -> Iterator[Check]:
    """Compares codes exactly (near ties aside) and audio decoded from the recorded codes."""
    config = MimiConfig.from_dict(
        recording.config,
        num_codebooks=recording.provenance["num_codebooks"],
        ring=recording.ring,
    )
    mimi = abstract(lambda: Mimi(config, rngs=nnx.Rngs(0)))
    params = params_from_tensors(config, recording.weights)
    signal = jnp.asarray(recording.tensors["inputs/pcm"]).reshape(1, -1)

    def encode(pcm: jax.Array, mode: mimi_jax.Mode) -> np.ndarray:
        run = jax.jit(lambda params, pcm: mimi_jax.encode(mimi, params, pcm, mode=mode))
        return np.asarray(run(params, pcm))[0].T

    def decode(codes: np.ndarray, mode: mimi_jax.Mode) -> np.ndarray:
        run = jax.jit(lambda params, codes: mimi_jax.decode(mimi, params, codes, mode=mode))
        return np.asarray(run(params, jnp.asarray(codes.T[None])))[0]

    for run, mode in (("stream", "stream"), ("full", "full")):
        if run in recording.runs:
            expected = recording.expected(run)
            codes, margin = expected["codes"], expected["margin"]
            yield equal(f"{run} codes", encode(signal, mode), codes, _decided(margin))
            pcm = expected["pcm"].reshape(-1)
            yield close(f"{run} pcm", decode(codes, mode), pcm, PCM_TOLERANCE)
    if "partial" in recording.runs and recording.ring == "kyutai":
        length = int(recording.tensors["inputs/partial_num_samples"][0])
        codes = recording.expected("partial")["codes"]
        got = encode(signal[:, :length], "full")
        yield equal("partial codes", got, codes, np.ones(codes.shape, bool))
    if "batch" in recording.runs:
        yield from _check_batch(recording, mimi, params)


def _decided(margin: np.ndarray) -> np.ndarray:
    """Where a code had no near tie at its own level or, in the residual chain, before."""
    semantic, acoustic = margin[..., :1], margin[..., 1:]
    chain = np.minimum.accumulate(acoustic, axis=-1)
    return np.concatenate([semantic, chain], axis=-1) >= NEAR_TIE


def _check_batch(recording: Recording, mimi: Mimi, params: Params) -> Iterator[Check]:
    """Rows that start, stop and restart at their own times."""
    inputs, expected = recording.inputs("batch"), recording.expected("batch")
    fresh = mimi_jax.init_state(mimi, inputs["pcm"].shape[1])

    def body(state: mimi_jax.MimiState, call: tuple) -> tuple:
        pcm, mask, reset, codes_to_decode = call
        state = reset_rows(reset, fresh, state)
        state, codes = encode_step(mimi, params, state, pcm, mask)
        state, audio = decode_step(mimi, params, state, codes_to_decode, mask)
        return state, (codes, audio)

    calls = (inputs["pcm"], inputs["exec_mask"], inputs["reset_mask"], expected["codes"])
    scan = jax.jit(lambda calls: jax.lax.scan(body, fresh, calls)[1])
    codes, audio = scan(jax.tree.map(jnp.asarray, calls))
    ran = inputs["exec_mask"]
    counted = ran[..., None] & _decided(expected["margin"])
    yield equal("batch codes", np.asarray(codes), expected["codes"], counted)
    heard = np.where(ran[..., None], np.asarray(audio), 0)
    yield close("batch pcm", heard, np.where(ran[..., None], expected["pcm"], 0), PCM_TOLERANCE)
