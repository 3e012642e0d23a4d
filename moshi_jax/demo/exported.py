"""The trained parameters and the folder they were exported to, by the tokens they give."""

from pathlib import Path

import numpy as np

from convert import load_mimi, load_moshi
from helium_jax import DuplexSession, Sampling
from layers_jax import Precision
from layers_jax.functional import Params
from moshi_jax.converse import converse


def stream_tokens(folder: Path, params: Params | None, pcm: np.ndarray) -> np.ndarray:
    """Tokens of a greedy f32 session over a file.

    Args:
      folder: checkpoint folder; gives the codec, and the model's shape.
      params: the model's parameters; those of the folder if None.
      pcm: [S] samples of the user.

    Returns:
      [T, 1 + Q] text and codes, a frame a row.
    """
    lm, stored = load_moshi(folder, precision=Precision.f32())
    mimi, mimi_params = load_mimi(folder)
    session = DuplexSession(
        mimi, mimi_params, lm, stored if params is None else params, sampling=Sampling.greedy()
    )
    frames = [np.append(said.frame.text, said.frame.codes) for said in converse(session, [pcm])]
    return np.stack(frames)


def check_export(base: Path, params: Params, export: Path, pcm: np.ndarray) -> int:
    """Stream both over the user's audio.

    Args:
      base: checkpoint folder that was trained.
      params: what training left.
      export: the folder that was written of it.
      pcm: [S] samples of the user.

    Returns:
      How many frames were compared; all were equal.

    Raises:
      ValueError: a frame differs.
    """
    trained, exported = stream_tokens(base, params, pcm), stream_tokens(export, None, pcm)
    same = int((trained == exported).all(axis=1).sum())
    if same != len(trained):
        raise ValueError(
            f"{export} gives other tokens than the trained parameters in {len(trained) - same} of "
            f"{len(trained)} frames, expected none"
        )
    return same
