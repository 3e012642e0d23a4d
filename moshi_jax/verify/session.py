"""Checks of an end-to-end recording, with a checkpoint folder beside it: audio in and out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from convert import load_mimi, load_moshi
from helium_jax import DuplexSession, Sampling
from layers_jax import Precision
from moshi_jax.verify.check import Check, close, equal_rows
from moshi_jax.verify.codec import PCM_TOLERANCE
from moshi_jax.verify.recording import Recording

SUFFIX = "_e2e"


def checkpoint_folder(recording: Recording) -> Path | None:
    """The folder that the recording was made with, or None if there is none beside it."""
    folder = recording.path.with_name(recording.name.removesuffix(SUFFIX))
    return folder if recording.name.endswith(SUFFIX) and folder.is_dir() else None


def check_session(recording: Recording, folder: Path) -> Iterator[Check]:
    """Streams the recorded audio greedily in f32 through the one executable."""
    mimi, mimi_params = load_mimi(folder)
    lm, lm_params = load_moshi(folder, precision=Precision.f32())
    greedy = Sampling.greedy()
    session = DuplexSession(mimi, mimi_params, lm, lm_params, sampling=greedy)
    frames = [session.step(pcm[None]) for pcm in recording.tensors["inputs/pcm"]]
    text, codes, pcm = (
        np.concatenate([np.asarray(getattr(frame, name)) for frame in frames])
        for name in ("text", "codes", "pcm")
    )
    expected = {
        name: recording.tensors[f"expected/{name}"]
        for name in ("out", "valid", "pcm", "text_margin", "audio_margin", "mimi_margin")
    }
    tokens = np.concatenate([text[:, None], codes], axis=1)
    margin = np.minimum.reduce(
        [expected["text_margin"], *(expected[f"{k}_margin"].min(1) for k in ("audio", "mimi"))]
    )
    yield equal_rows("session tokens", tokens, expected["out"], expected["valid"], margin)
    yield close("session pcm", pcm, expected["pcm"], PCM_TOLERANCE)
