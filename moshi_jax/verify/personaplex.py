"""Checks of a recording of PersonaPlex: NVIDIA's timing, forced tokens, prompts."""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from helium_jax import (
    NOT_GIVEN,
    Moshi,
    MoshiState,
    init_state,
    prefill,
    prefill_embeddings,
    prompt_frames,
)
from layers_jax.functional import Params
from moshi_jax.verify.check import Check, equal, equal_rows
from moshi_jax.verify.language_model import check_forward
from moshi_jax.verify.recording import Recording
from moshi_jax.verify.runs import load, read_config, read_sampling, run

RUNS = {"forced", "session", "selfplay", "selfplay_long", "sampled", "forward"}
RUNS |= {"selfplay_forward", "selfplay_long_forward"}


def check_personaplex(recording: Recording) -> Iterator[Check]:
    """Compares forced, free and self-talking runs token for token, prompts in all their forms."""
    lm, params = load(read_config(recording), recording)
    runs = recording.runs
    if "forced" in runs:
        inputs = recording.inputs("forced")
        given = {
            name: np.where(_wide(inputs["have"][:, i], inputs[name]), inputs[name], NOT_GIVEN)
            for i, name in enumerate(("user", "agent", "text"))
        }
        yield from _check(recording, "forced", lm, params, given)
    if "session" in runs:
        yield from _check_session(recording, lm, params)
    for name in sorted(runs & {"selfplay", "selfplay_long"}):
        options = recording.provenance["options"].get(name, {})
        other, _ = load(read_config(recording, **options), recording)
        yield from _check(recording, name, other, params, {})
    if "sampled" in runs:
        inputs = recording.inputs("sampled")
        # The first call runs no model and draws nothing.
        noise = {
            name: np.pad(inputs[name], ((1, 0), *[(0, 0)] * (inputs[name].ndim - 1)), "edge")
            for name in ("noise_text", "noise_audio")
        }
        sampling = read_sampling(recording.provenance["options"]["sampled"])
        expected = recording.expected("sampled")
        calls = _rows({"user": inputs["user"], **noise})
        out = run(lm, params, calls, sampling)
        tokens = out.tokens[:, 0]
        yield equal_rows("sampled", tokens, expected["out"], expected["valid"], None)
    for name in sorted(name for name in runs if name.endswith("forward")):
        # A longer context than that of the self-talk leaves a forward as it is only if it is used.
        options = recording.provenance["options"].get(name.removesuffix("_forward"), {})
        other, _ = load(read_config(recording, **options), recording)
        codes = recording.tensors[f"inputs/{name}/codes"]
        yield from check_forward(recording.expected(name), name, other, params, codes)


def _check(
    recording: Recording, name: str, lm: Moshi, params: Params, given: Mapping[str, np.ndarray]
) -> Iterator[Check]:
    """A greedy run of one session, given what is not drawn."""
    expected = recording.expected(name)
    calls = _rows(given) if given else {"calls": len(expected["out"]), "batch": 1}
    if "user" in given and (given["user"] == NOT_GIVEN).any():
        calls["draw_user"] = True
    out = run(lm, params, calls)
    margin = _margin(expected, heard="user" in given and "draw_user" not in calls)
    valid = expected["valid"]
    yield equal_rows(name, out.tokens[:, 0], expected["out"], valid, margin)
    yield equal(f"{name} valid", out.valid[:, 0], valid, np.ones(valid.shape, bool))


def _check_session(recording: Recording, lm: Moshi, params: Params) -> Iterator[Check]:
    """Prompts step by step, in one pass, and from a stored voice, with the free calls after."""
    inputs, expected = recording.inputs("session"), recording.expected("session")
    grid = {name: inputs[f"grid_{name}"] for name in ("text", "agent", "user")}
    given = {name: np.where(codes < 0, NOT_GIVEN, codes) for name, codes in grid.items()}
    yield from _check(recording, "session", lm, params, given)

    free = len(inputs["user"])
    prompt = len(expected["out"]) - free
    parts = {
        "silence": inputs["silence_tokens"].tolist(),
        "sine": inputs["sine_tokens"].tolist(),
        "silence_frames": recording.provenance["options"]["session"]["silence_frames"],
    }
    tokens = inputs["text_prompt_tokens"].tolist()
    voice = inputs["voice_codes"]
    whole = prompt_frames(lm.config, voice, tokens, **parts)
    recorded = np.concatenate([grid["text"][:, None], grid["agent"], grid["user"]], axis=1)
    yield equal("prompt", whole, recorded[:prompt], np.ones(whole.shape, bool))

    fresh = init_state(lm, 1)
    states = {"in one pass": _prefill(lm, params, fresh, whole)}
    rest = prompt_frames(lm.config, None, tokens, **parts)
    replayed = prefill_embeddings(
        lm,
        params,
        fresh,
        jnp.asarray(inputs["voice_pt_embeddings"].reshape(len(voice) - 1, -1)),
        jnp.asarray(inputs["voice_pt_cache"][0]),
        jnp.asarray(len(voice) - 1),
    )
    states["from its stored voice"] = _prefill(lm, params, replayed, rest)
    margin = _margin(expected, heard=True)[prompt:]
    for name, state in states.items():
        out = run(lm, params, _rows({"user": inputs["user"]}), state=state)
        everywhere = np.ones(free, bool)
        wanted = expected["out"][prompt:]
        yield equal_rows(f"prompt {name}", out.tokens[:, 0], wanted, everywhere, margin)
        offset = np.asarray(state.offset)
        after = expected["offset_after_prompts"]
        yield equal(f"calls {name}", offset, after, np.ones(1, bool))


def _prefill(lm: Moshi, params: Params, state: MoshiState, frames: np.ndarray) -> MoshiState:
    run = jax.jit(lambda params, *rest: prefill(lm, params, *rest))
    return run(params, state, jnp.asarray(frames)[None], jnp.array([len(frames)]))


def _margin(expected: Mapping[str, np.ndarray], *, heard: bool) -> np.ndarray:
    """Smallest margin of each call; the first runs no model, provided tokens choose nothing."""
    audio = expected["audio_margin"]
    if "dep_provided" in expected:
        audio = np.where(expected["dep_provided"], np.inf, audio)
    elif heard:
        audio = audio[:, : audio.shape[1] // 2]
    margin = audio.min(axis=1)
    if "text_margin" in expected:
        margin = np.minimum(margin, expected["text_margin"])
    return np.concatenate([[np.inf], margin])


def _rows(inputs: Mapping[str, np.ndarray]) -> dict:
    """Inputs of one session as those of a batch of one."""
    return {name: value[:, None] for name, value in inputs.items()}


def _wide(have: np.ndarray, values: np.ndarray) -> np.ndarray:
    return have.reshape(-1, *[1] * (values.ndim - 1))
