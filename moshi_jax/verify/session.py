"""Checks of an end-to-end recording, with a checkpoint folder beside it: audio in and out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from convert import load_voice, voice_names
from helium_jax import DuplexSession, Sampling
from layers_jax import Precision
from moshi_jax.loading import load
from moshi_jax.verify.check import Check, close, equal, equal_rows
from moshi_jax.verify.codec import PCM_TOLERANCE
from moshi_jax.verify.recording import Recording

SUFFIX, ARCH_SUFFIX = "_e2e", ".arch.json"


def checkpoint_folder(recording: Recording) -> Path | None:
    """The folder that the recording was made with, or None if there is none beside it."""
    folder = recording.path.with_name(recording.name.removesuffix(SUFFIX))
    return folder if recording.name.endswith(SUFFIX) and folder.is_dir() else None


def check_session(recording: Recording, folder: Path) -> Iterator[Check]:
    """Streams the recorded audio greedily in f32 through the one executable, prompted or not."""
    arch = folder.with_name(folder.name + ARCH_SUFFIX)
    session = load(
        folder,
        precision=Precision.f32(),
        sampling=Sampling.greedy(),
        arch=arch if arch.is_file() else None,
    )
    if "text_prompt" not in recording.provenance:
        pcm = recording.tensors["inputs/pcm"]
        yield from _check(recording, "session", session, pcm, "expected/")
        return
    text, pcm = recording.provenance["text_prompt"], recording.tensors["inputs/user_pcm"]
    session.prompt(recording.tensors["inputs/voice_pcm"], text, beyond_context=True)
    expected = recording.tensors["expected/offset_after_prompts"]
    yield equal("calls of the prompts", session.offsets, expected, np.ones(1, bool))
    yield from _check(recording, "session", session, pcm, "expected/")
    (name,) = voice_names(folder)
    session.prompt(load_voice(folder, name), text, beyond_context=True)
    yield from _check(recording, "session with a stored voice", session, pcm, "expected/pt_bf16/")


def _check(
    recording: Recording, name: str, session: DuplexSession, pcm: np.ndarray, prefix: str
) -> Iterator[Check]:
    frames = [session.step(frame[None]) for frame in pcm]
    text, codes, spoken = (
        np.concatenate([np.asarray(getattr(frame, part)) for frame in frames])
        for part in ("text", "codes", "pcm")
    )
    tokens = np.concatenate([text[:, None], codes], axis=1)
    expected = recording.tensors[f"{prefix}out"][:, : tokens.shape[1]]
    valid = recording.tensors.get("expected/valid", np.ones(len(expected), bool))
    # Those of the codec cover all of its codebooks, those of the model the agent's.
    margin = np.minimum.reduce(
        [
            recording.tensors["expected/text_margin"],
            recording.tensors["expected/audio_margin"][:, : codes.shape[1]].min(1),
            recording.tensors["expected/mimi_margin"].min(1),
        ]
    )
    yield equal_rows(f"{name} tokens", tokens, expected, valid, margin)
    yield close(f"{name} pcm", spoken, recording.tensors[f"{prefix}pcm"], PCM_TOLERANCE)
