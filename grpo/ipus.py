"""Who speaks when in a two-channel recording: levels, voice activity, cross-talk gate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32

from grpo.segments import SAMPLE_RATE
from rewards.intervals import Interval, clip, length_s, total_s
from rewards.resample import resample_24k_to_16k
from rewards.timestamps import VadConfig, speech_intervals
from rewards.vad import speech_probabilities

TwoChannels = tuple[list[Interval], list[Interval]]

_BLOCK_S = 0.4  # loudness is measured in blocks of this length, as ITU-R BS.1770 does
_SILENCE_DB = -70.0  # blocks below it, and those 10 dB below the mean of the rest, do not count
_RELATIVE_DB = -10.0
_SHORTEST_BUCKET_S = 30.0


@dataclass(frozen=True, kw_only=True)
class SpeechConfig:
    """How intervals of speech (IPUs) are found.

    Attributes:
        vad: of the axes pause, turn and interruption.
        vad_backchannel: of the axis backchannel, whose events are often shorter than 0.25 s.
        level_db: both channels are brought to this level (dB of full scale, RMS of what is not
            silence) before the detector hears them: far quieter speech moves its onsets by 0.1 s.
        crosstalk_db: an IPU this much quieter than the other channel over the same time is taken
            for that channel's bleed; None keeps all.
        crosstalk_active: only when the other channel speaks in more than this part of the IPU.
    """

    vad: VadConfig = field(default_factory=VadConfig)
    vad_backchannel: VadConfig = field(default_factory=lambda: VadConfig(min_speech_s=0.12))
    level_db: float = -24.0
    crosstalk_db: float | None = 15.0
    crosstalk_active: float = 0.6


def two_channel_ipus(
    params: dict[str, Any], pcm: Float32[np.ndarray, "2 S"], config: SpeechConfig
) -> tuple[TwoChannels, TwoChannels]:
    """IPUs of both channels, seconds in the recording.

    Args:
        params: of `rewards.vad.load_vad`.
        pcm: a whole recording at 24 kHz, one speaker a channel.
        config: see `SpeechConfig`.

    Returns:
        The IPUs under `config.vad`, and those under `config.vad_backchannel`.
    """
    levelled = np.stack([to_level(channel, config.level_db) for channel in pcm])
    # Zeros up to one of few lengths: each length is a compilation, and nothing heard before
    # the padding changes by it.
    padding = _bucket_samples(pcm.shape[1]) - pcm.shape[1]
    audio = resample_24k_to_16k(np.pad(levelled, ((0, 0), (0, padding))))
    probabilities = np.asarray(speech_probabilities(params, audio))
    num_samples = -(-2 * pcm.shape[1] // 3)
    hops = -(-num_samples // 512)

    def ipus(vad: VadConfig) -> TwoChannels:
        first, second = (speech_intervals(row[:hops], num_samples, vad) for row in probabilities)
        return (
            without_crosstalk(pcm, first, second, channel=0, config=config),
            without_crosstalk(pcm, second, first, channel=1, config=config),
        )

    return ipus(config.vad), ipus(config.vad_backchannel)


def to_level(pcm: Float32[np.ndarray, " S"], level_db: float) -> Float32[np.ndarray, " S"]:
    """Scales one channel so that the parts that are not silence have an RMS of `level_db`.

    A channel without any such part (digital silence, or all below -70 dB) stays as it is.
    """
    block = min(round(_BLOCK_S * SAMPLE_RATE), len(pcm))
    blocks = pcm[: len(pcm) // block * block].reshape(-1, block)
    power = np.mean(np.square(blocks, dtype=np.float64), axis=1)
    power = power[power > 10 ** (_SILENCE_DB / 10)]
    if power.size == 0:
        return pcm
    power = power[power >= power.mean() * 10 ** (_RELATIVE_DB / 10)]
    gain = math.sqrt(10 ** (level_db / 10) / power.mean())
    return (pcm * gain).astype(np.float32)


def without_crosstalk(
    pcm: Float32[np.ndarray, "2 S"],
    ipus: Sequence[Interval],
    other_ipus: Sequence[Interval],
    *,
    channel: int,
    config: SpeechConfig,
) -> list[Interval]:
    """Leaves out the IPUs of `channel` that are only the other speaker, heard from afar.

    The levels compared are those of the recording, before `to_level`.
    """
    if config.crosstalk_db is None:
        return list(ipus)

    def is_bleed(ipu: Interval) -> bool:
        active = total_s(clip(other_ipus, *ipu)) / length_s(ipu)
        start, end = (round(time * SAMPLE_RATE) for time in ipu)
        power = np.mean(np.square(pcm[:, start:end], dtype=np.float64), axis=1)
        limit = power[1 - channel] / 10 ** (config.crosstalk_db / 10)
        return active > config.crosstalk_active and bool(power[channel] < limit)

    return [ipu for ipu in ipus if not is_bleed(ipu)]


def _bucket_samples(samples: int) -> int:
    """30 s, 45 s, 60 s, 90 s, 120 s, ...: at most half as much again."""
    bucket = round(_SHORTEST_BUCKET_S * SAMPLE_RATE)
    while bucket < samples:
        bucket = bucket * 3 // 2 if bucket * 3 // 2 >= samples else bucket * 2
    return bucket
