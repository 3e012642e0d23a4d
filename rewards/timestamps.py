"""From speech probabilities to speech intervals: the state machine of silero-vad 6.2.3."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rewards.intervals import Interval
from rewards.resample import resample_24k_to_16k
from rewards.vad import HOP_SAMPLES, SAMPLE_RATE, speech_probabilities


@dataclass(frozen=True, kw_only=True)
class VadConfig:
    """When speech begins and ends; the defaults are those of silero-vad.

    Attributes:
        threshold: speech begins in the first hop with at least this probability.
        negative_threshold: silence begins in a hop below it (and is forgotten when the
            probability reaches `threshold` again in time).
        min_silence_s: speech ends when silence has lasted this long.
        min_speech_s: speech that is not longer is dropped (before padding). 0.12 keeps short
            backchannels.
        pad_s: added to both ends; a shorter silence between two intervals is split in half.

    Raises:
        ValueError: thresholds not in 0 < negative_threshold <= threshold < 1, or a negative time.
    """

    threshold: float = 0.5
    negative_threshold: float = 0.35
    min_silence_s: float = 0.1
    min_speech_s: float = 0.25
    pad_s: float = 0.03

    def __post_init__(self) -> None:
        if not 0 < self.negative_threshold <= self.threshold < 1:
            raise ValueError(
                f"negative_threshold {self.negative_threshold} and threshold {self.threshold}, "
                "expected 0 < negative_threshold <= threshold < 1"
            )
        for name in ("min_silence_s", "min_speech_s", "pad_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 0")


_DEFAULTS = VadConfig()


def speech_intervals(
    probabilities: Float[np.ndarray, " F"] | Float[Array, " F"],
    num_samples: int,
    config: VadConfig = _DEFAULTS,
) -> list[Interval]:
    """Speech intervals of one channel, in seconds.

    Equal to `get_speech_timestamps(...)` of silero-vad in samples, divided by 16000: its rounding
    of seconds to 0.1 is coarser than the latencies that are rewarded.

    Args:
        probabilities: of `speech_probabilities`, one per 512 samples.
        num_samples: samples of 16 kHz audio they were computed from.
        config: see `VadConfig`; times are rounded to whole samples.

    Raises:
        ValueError: not ceil(num_samples / 512) probabilities, or one is NaN.
    """
    probabilities = np.asarray(probabilities, np.float64)
    hops = -(-num_samples // HOP_SAMPLES)
    if len(probabilities) != hops:
        raise ValueError(
            f"{len(probabilities)} probabilities, expected {hops} for {num_samples} samples"
        )
    if np.isnan(probabilities).any():
        raise ValueError("a probability is NaN: the audio is not finite")
    speech = _triggered(probabilities, num_samples, config)
    padded = _pad(speech, num_samples, round(config.pad_s * SAMPLE_RATE))
    return [(start / SAMPLE_RATE, end / SAMPLE_RATE) for start, end in padded]


def _triggered(
    probabilities: Float[np.ndarray, " F"], num_samples: int, config: VadConfig
) -> list[tuple[int, int]]:
    """Unpadded (start, end) in samples."""
    min_silence = round(config.min_silence_s * SAMPLE_RATE)
    min_speech = round(config.min_speech_s * SAMPLE_RATE)
    found: list[tuple[int, int]] = []
    start: int | None = None  # of the speech we are in
    silence: int | None = None  # start of the silence that may end it

    for hop, probability in enumerate(probabilities.tolist()):
        now = hop * HOP_SAMPLES
        if probability >= config.threshold:
            start = now if start is None else start
            silence = None
        elif start is not None and probability < config.negative_threshold:
            silence = now if silence is None else silence
            if now - silence >= min_silence:
                found.append((start, silence))
                start = silence = None
    if start is not None:
        found.append((start, num_samples))
    return [(start, end) for start, end in found if end - start > min_speech]


def _pad(speech: list[tuple[int, int]], num_samples: int, pad: int) -> list[tuple[int, int]]:
    """Widen by `pad` within [0, num_samples]; neighbours share a silence too short for both."""
    starts, ends = [start for start, _ in speech], [end for _, end in speech]
    for index, (start, end) in enumerate(speech):
        before = start - speech[index - 1][1] if index > 0 else 2 * pad
        after = speech[index + 1][0] - end if index + 1 < len(speech) else 2 * pad
        starts[index] = max(0, start - min(pad, before // 2))
        ends[index] = min(num_samples, end + min(pad, after // 2))
    return list(zip(starts, ends, strict=True))


def detect_speech(
    params: dict[str, Any],
    pcm: Float[np.ndarray, "B S"] | Float[Array, "B S"],
    *,
    sample_rate: int,
    config: VadConfig = _DEFAULTS,
) -> list[list[Interval]]:
    """Speech intervals of every channel of a batch.

    Args:
        params: of `load_vad`.
        pcm: whole recordings. Cut a segment out of the intervals, never out of the audio: the
            network needs what came before.
        sample_rate: 16000, or 24000 (resampled here).
        config: see `VadConfig`.

    Returns:
        For every row its intervals in seconds.

    Raises:
        ValueError: another sample rate, no samples, or audio that is not finite.
    """
    if sample_rate not in (SAMPLE_RATE, 24_000):
        raise ValueError(f"sample_rate is {sample_rate}, expected 16000 or 24000: resample first")
    audio = jnp.asarray(pcm, jnp.float32)
    if sample_rate == 24_000:
        audio = resample_24k_to_16k(audio)
    probabilities = np.asarray(speech_probabilities(params, audio))
    return [speech_intervals(row, audio.shape[1], config) for row in probabilities]
