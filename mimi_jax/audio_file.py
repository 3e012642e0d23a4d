"""Audio files in and out: PCM as float32 [C, S] at the rate that was asked for.

soundfile and soxr belong to the extra `audio` and are imported when a function needs them.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Float, Float32

from layers_jax.files import atomic_path

__all__ = ["check_target", "import_audio_extra", "read_audio", "resample", "write_audio"]

# What recorders and telephones really use, with an octave of room at both ends; a header outside
# is damaged, and resampling from it would turn seconds into hours or into nothing.
_LOWEST_RATE, _HIGHEST_RATE = 4_000, 384_000
_FORMATS = {".wav": "WAV", ".flac": "FLAC"}
_MOST_CHANNELS = 8  # the FLAC limit; more almost always means [S, C] instead of [C, S]


def read_audio(
    path: str | os.PathLike[str], *, sample_rate: int, channels: int | None = None
) -> Float32[np.ndarray, "C S"]:
    """Reads a file that libsndfile knows (WAV, FLAC, Ogg, MP3, ...) as PCM at `sample_rate`.

    Args:
        path: the file.
        sample_rate: rate of the result in Hz; a file at another rate is resampled (`resample`).
        channels: None keeps the channels of the file; 1 gives one channel, the mean of all of the
            file's; any other number must be the number the file has.

    Returns:
        Samples [C, S], full scale is 1.0. Values of a float file may exceed it and are kept.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not audio, empty, NaN or infinite samples, an impossible sample rate in the
            header, or another number of channels than asked for.
        ImportError: the extra `audio` is not installed.
    """
    soundfile = import_audio_extra("soundfile")
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"cannot read {path}: got no file there, expected an audio file; check the path"
        )
    try:
        frames, file_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: *.raw has no header
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise ValueError(
            f"cannot read {path}: got {reason!r} from libsndfile, expected audio with a header such"
            " as WAV or FLAC; convert the file first"
        ) from error
    pcm = np.ascontiguousarray(frames.T)
    _check_rate(f"{path}: sample rate in the header", file_rate, "fix the header")
    _check_samples(str(path), pcm)
    if channels == 1:
        pcm = pcm.mean(axis=0, keepdims=True)
    elif channels is not None and channels != pcm.shape[0]:
        raise ValueError(
            f"{path}: got {pcm.shape[0]} channel(s), expected {channels}; give a file with one"
            " speaker on each channel"
        )
    return resample(pcm, file_rate, sample_rate)


def write_audio(
    path: str | os.PathLike[str],
    pcm: Float[np.ndarray, "C S"] | Float[np.ndarray, " S"],
    sample_rate: int,
) -> None:
    """Writes PCM as 16-bit WAV or FLAC (chosen by the suffix), completely or not at all.

    16 bits cannot hold more than full scale: samples are clipped to [-1, 1] and rounded to the
    nearest of 65536 steps. Whatever `read_audio` returned for a 16-bit file comes back bit by bit.

    Args:
        path: target, ending in .wav or .flac; an existing file is replaced when the new one is
            complete.
        pcm: samples [C, S], or [S] for one channel; full scale is 1.0.
        sample_rate: rate in Hz.

    Raises:
        FileNotFoundError: the target's folder does not exist.
        ValueError: another suffix or shape, no samples, NaN or infinite samples, or an impossible
            sample rate.
        ImportError: the extra `audio` is not installed.
    """
    soundfile = import_audio_extra("soundfile")
    check_target(path)
    samples = np.atleast_2d(np.asarray(pcm))
    if samples.ndim != 2 or samples.shape[0] > _MOST_CHANNELS:
        raise ValueError(
            f"cannot write {path}: got samples of shape {list(np.shape(pcm))}, expected [C, S] with"
            f" at most {_MOST_CHANNELS} channels; transpose or split them"
        )
    _check_rate(f"cannot write {path}: sample rate", sample_rate, "pass the rate in Hz")
    _check_samples(f"cannot write {path}", samples)
    steps = np.clip(np.rint(np.float64(samples) * 32768), -32768, 32767).astype(np.int16)
    with atomic_path(path) as temporary:
        soundfile.write(
            temporary, steps.T, sample_rate, subtype="PCM_16", format=_FORMATS[_suffix(path)]
        )


def check_target(path: str | os.PathLike[str]) -> None:
    """Says before long work what `write_audio` would say of its target after it.

    Raises:
        FileNotFoundError: the target's folder does not exist.
        ValueError: the suffix is neither .wav nor .flac.
    """
    if _suffix(path) not in _FORMATS:
        raise ValueError(
            f"cannot write {path}: got suffix {_suffix(path)!r}, expected one of "
            f"{', '.join(_FORMATS)}; rename the target"
        )
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {path}: got no folder {Path(path).parent}, expected one; create it first"
        )


def resample(
    pcm: Float[np.ndarray, "C S"], source_rate: int, target_rate: int
) -> Float32[np.ndarray, "C R"]:
    """Changes the sample rate with soxr (HQ, linear phase: no delay).

    Args:
        pcm: samples [C, S].
        source_rate: rate of `pcm` in Hz.
        target_rate: rate of the result in Hz.

    Returns:
        Samples [C, R] with R = round(S * target_rate / source_rate). Sample n of the result lies at
        n / target_rate seconds. Equal rates give the samples unchanged.

    Raises:
        ValueError: an impossible rate, or too few samples for a single one at the target rate.
        ImportError: the extra `audio` is not installed.
    """
    _check_rate("source sample rate", source_rate, "pass the rate in Hz")
    _check_rate("target sample rate", target_rate, "pass the rate in Hz")
    pcm = np.asarray(pcm, np.float32)
    length = round(pcm.shape[1] * target_rate / source_rate)
    if length == 0:
        raise ValueError(
            f"cannot resample from {source_rate} to {target_rate} Hz: got {pcm.shape[1]} sample(s),"
            " expected enough for one at the target rate; give longer audio"
        )
    if source_rate == target_rate:
        return pcm
    soxr = import_audio_extra("soxr")
    # Silence after the end lets soxr compute every sample of the result, also where it would
    # itself round the length down.
    padding = 1 + -(-source_rate // target_rate)
    padded = np.pad(pcm, ((0, 0), (0, padding)))
    result = soxr.resample(padded.T, source_rate, target_rate, quality="HQ")
    return np.ascontiguousarray(result[:length].T)


def _check_rate(what: str, rate: int, remedy: str) -> None:
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise ValueError(
            f"{what}: got {rate} Hz, expected {_LOWEST_RATE}..{_HIGHEST_RATE} Hz; {remedy}"
        )


def _check_samples(what: str, pcm: np.ndarray) -> None:
    if pcm.size == 0:
        raise ValueError(
            f"{what}: got no samples, expected at least one; check that the recording is complete"
        )
    finite = np.isfinite(pcm)
    if not finite.all():
        channel, sample = np.argwhere(~finite)[0]
        raise ValueError(
            f"{what}: got {np.count_nonzero(~finite)} NaN or infinite sample(s), the first at"
            f" channel {channel} sample {sample}, expected finite values; repair the audio"
        )


def import_audio_extra(name: str) -> ModuleType:
    """Imports a package of the extra `audio`, or says how to install it (ImportError)."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"audio files: got no package {name!r}, expected it to be installed;"
            " run pip install 'moshi-jax[audio]'"
        ) from error


def _suffix(path: str | os.PathLike[str]) -> str:
    return Path(path).suffix.lower()
