"""A recording of someone as the voice that a PersonaPlex agent is to speak with."""

from pathlib import Path

import numpy as np

from convert import load_voice, voice_names
from grpo.loudness import LoudnessMeter
from helium_jax import Voice
from mimi_jax import read_audio

LOUDNESS_LUFS = -24.0  # of the recordings that the model was trained with


def read_voice(source: str, folder: Path, sample_rate: int) -> np.ndarray | Voice:
    """The voice of that name in a checkpoint folder, else that of an audio file.

    A file becomes one channel at the codec's rate, as loud as the reference makes it.

    Args:
      source: name of a stored voice, or a path.
      folder: the checkpoint.
      sample_rate: of the codec.

    Raises:
      ValueError: it is neither, or the file is silent.
    """
    names = voice_names(folder)
    if source in names:
        return load_voice(folder, source)
    if not Path(source).is_file():
        raise ValueError(
            f"no voice {source!r}: got neither a file of that name nor a stored voice, expected an "
            f"audio file or one of {', '.join(names) or 'none'} in {folder}"
        )
    pcm = read_audio(source, sample_rate=sample_rate, channels=1)
    meter = LoudnessMeter(sample_rate, 1)
    meter.update(pcm)
    (loudness,) = meter.integrated_lufs()
    if loudness is None:
        raise ValueError(
            f"voice {source} is silent or shorter than 0.4 s, expected speech; record it again"
        )
    return (pcm[0] * 10 ** ((LOUDNESS_LUFS - loudness) / 20)).astype(np.float32)
