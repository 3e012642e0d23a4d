"""Who speaks when in a two-channel recording: loudness, voice activity, cross-talk gate.

The recording is heard once, in blocks: resampled to 16 kHz, measured, and put aside in a temporary
file, out of which the detector hears it at equal loudness. Memory does not grow with the audio.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float, Float32

from grpo.clock import ClockCheck
from grpo.corpora import TwoChannelPcm
from grpo.edges import FRAME_SAMPLES, frame_energy, refine_edges
from grpo.loudness import LoudnessMeter
from mimi_jax.audio_file import import_audio_extra
from rewards.intervals import Interval, clip, length_s, total_s
from rewards.timestamps import VadConfig, speech_intervals
from rewards.vad import HOP_SAMPLES, SAMPLE_RATE, initial_state, stream_probabilities

TwoChannels = tuple[list[Interval], list[Interval]]

_BLOCK_S = 30.0
_BLOCK_HOPS = 1000  # of the detector, 32 s: one compilation for recordings of every length
_SPOOL_BYTES = 2**27  # what is put aside stays in memory up to 17 minutes


@dataclass(frozen=True, kw_only=True)
class SpeechConfig:
    """How intervals of speech (IPUs) are found.

    Attributes:
        vad: of the axes pause, turn and interruption.
        vad_backchannel: of the axis backchannel, whose events are often shorter than 0.25 s.
        level_lufs: loudness both channels are brought to before the detector hears them: far
            quieter speech moves its onsets by 0.1 s. None: as recorded.
        crosstalk_db: an IPU this much quieter than the other channel over the same time is taken
            for that channel's bleed; None keeps all.
        crosstalk_active: only when the other channel speaks in more than this part of the IPU.
        edge_db: IPUs end where their level has fallen this far (or into the room's), see
            `grpo/edges.py`; None: where the detector says.
        max_clock_shift_s: two files of one conversation whose bleed says that their clocks differ
            by more are not used; None believes the files.
    """

    vad: VadConfig = field(default_factory=VadConfig)
    vad_backchannel: VadConfig = field(default_factory=lambda: VadConfig(min_speech_s=0.12))
    level_lufs: float | None = -24.0
    crosstalk_db: float | None = 15.0
    crosstalk_active: float = 0.6
    edge_db: float | None = 35.0
    max_clock_shift_s: float | None = 0.08


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a recording says.

    Attributes:
        duration_s: length.
        lufs: loudness of both channels as recorded.
        ipus: speech of both channels under `SpeechConfig.vad`, seconds in the recording.
        ipus_backchannel: the same under `vad_backchannel`.
        clock_shift_s: how much later the second of two files hears the first one's speaker; None
            for one file, and where there is no bleed to tell.
    """

    duration_s: float
    lufs: tuple[float, float]
    ipus: TwoChannels
    ipus_backchannel: TwoChannels
    clock_shift_s: float | None = None


def hear(
    params: dict[str, Any],
    pcm: TwoChannelPcm,
    config: SpeechConfig,
    *,
    two_files: bool = False,
    scratch: Path | None = None,
) -> Heard:
    """Hears a recording of any length.

    Args:
        params: of `rewards.vad.load_vad`.
        pcm: open audio.
        config: see `SpeechConfig`.
        two_files: the channels come from two recorders: compare their clocks.
        scratch: folder of the temporary file; the system's if None.

    Raises:
        ValueError: a channel is silent, both are the same, the clocks differ, or the audio is
            damaged.
    """
    folder = None if scratch is None else str(scratch)
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES, dir=folder) as aside:
        meter, clock = LoudnessMeter(SAMPLE_RATE, 2), ClockCheck() if two_files else None
        samples, same = 0, True
        for block in _at_16k(pcm):
            meter.update(block)
            if clock is not None:
                clock.update(block)
            same = same and bool(np.array_equal(block[0], block[1]))
            samples += block.shape[1]
            aside.write(np.ascontiguousarray(block.T).tobytes())
        lufs = _loudness(meter, same)
        shift_s = None if clock is None else _clock_shift_s(clock, config)
        aside.seek(0)
        probabilities, energy = _probabilities(params, aside, samples, lufs, config.level_lufs)

    def ipus(vad: VadConfig) -> TwoChannels:
        first, second = (speech_intervals(row, samples, vad) for row in probabilities)
        own = without_crosstalk(energy, first, second, channel=0, config=config)
        other = without_crosstalk(energy, second, first, channel=1, config=config)
        if config.edge_db is None:
            return own, other
        return (
            refine_edges(own, energy[0], config.edge_db),
            refine_edges(other, energy[1], config.edge_db),
        )

    return Heard(
        duration_s=samples / SAMPLE_RATE,
        lufs=lufs,
        ipus=ipus(config.vad),
        ipus_backchannel=ipus(config.vad_backchannel),
        clock_shift_s=shift_s,
    )


def without_crosstalk(
    energy: Float[np.ndarray, "2 F"],
    ipus: Sequence[Interval],
    other_ipus: Sequence[Interval],
    *,
    channel: int,
    config: SpeechConfig,
) -> list[Interval]:
    """Leaves out the IPUs of `channel` that are only the other speaker, heard from afar.

    Args:
        energy: of both channels as recorded, of `frame_energy`.
        ipus: of `channel`.
        other_ipus: of the other channel.
        channel: 0 or 1.
        config: see `SpeechConfig`.
    """
    if config.crosstalk_db is None:
        return list(ipus)
    limit = 10 ** (-config.crosstalk_db / 10)
    # Energy up to a frame's start, so that any span is two look-ups and a subtraction.
    before = np.pad(np.cumsum(energy, axis=1, dtype=np.float64), ((0, 0), (1, 0)))
    frames = np.arange(before.shape[1])

    def within(ipu: Interval, row: int) -> float:
        start, end = np.interp(np.array(ipu) * SAMPLE_RATE / FRAME_SAMPLES, frames, before[row])
        return float(end - start)

    def is_bleed(ipu: Interval) -> bool:
        active = total_s(clip(other_ipus, *ipu)) / length_s(ipu)
        quiet = within(ipu, channel) < limit * within(ipu, 1 - channel)
        return active > config.crosstalk_active and quiet

    return [ipu for ipu in ipus if not is_bleed(ipu)]


def _at_16k(pcm: TwoChannelPcm) -> Iterator[Float32[np.ndarray, "2 N"]]:
    soxr = import_audio_extra("soxr")
    stream = soxr.ResampleStream(pcm.sample_rate, SAMPLE_RATE, 2, dtype="float32", quality="HQ")
    for block in pcm.blocks(_BLOCK_S):
        yield stream.resample_chunk(np.ascontiguousarray(block.T)).T
    yield stream.resample_chunk(np.empty((0, 2), np.float32), last=True).T


def _loudness(meter: LoudnessMeter, same: bool) -> tuple[float, float]:
    lufs = meter.integrated_lufs()
    for channel, value in enumerate(lufs):
        if value is None:
            raise ValueError(
                f"channel {channel} is silent (nothing above -70 LUFS), expected a speaker on each"
            )
    if same:
        raise ValueError("both channels are the same, expected one speaker on each")
    first, second = lufs
    assert first is not None and second is not None
    return first, second


def _clock_shift_s(clock: ClockCheck, config: SpeechConfig) -> float | None:
    shift_s = clock.shift_s()
    limit_s = config.max_clock_shift_s
    if shift_s is not None and limit_s is not None and abs(shift_s) > limit_s:
        raise ValueError(
            f"the clocks of the two files differ by {shift_s:.3f} s, as bleed of one speaker into"
            f" the other's microphone shows; expected at most {limit_s} s"
        )
    return shift_s


def _probabilities(
    params: dict[str, Any],
    aside: IO[bytes],
    samples: int,
    lufs: tuple[float, float],
    level_lufs: float | None,
) -> tuple[Float32[np.ndarray, "2 F"], Float32[np.ndarray, "2 E"]]:
    """Probability of speech in every hop, at equal loudness, and energy of every 10 ms."""
    gains = np.ones((2, 1), np.float32)
    if level_lufs is not None:
        gains = np.array([[10 ** ((level_lufs - value) / 20)] for value in lufs], np.float32)
    state, found, energy = initial_state(params, 2), [], []
    for _ in range(0, samples, _BLOCK_HOPS * HOP_SAMPLES):
        heard = np.frombuffer(aside.read(_BLOCK_HOPS * HOP_SAMPLES * 8), np.float32)
        block = np.zeros((2, _BLOCK_HOPS * HOP_SAMPLES), np.float32)
        block[:, : len(heard) // 2] = heard.reshape(-1, 2).T
        # Not waited for: the next block is read while this one is computed.
        state, probabilities = stream_probabilities(params, state, block * gains)
        found.append(probabilities)
        energy.append(frame_energy(block))
    hops = -(-samples // HOP_SAMPLES)
    joined = np.concatenate([np.asarray(part) for part in found], axis=1)
    frames = samples // FRAME_SAMPLES
    return joined[:, :hops], np.concatenate(energy, axis=1)[:, :frames]
