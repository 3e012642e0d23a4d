"""What rooms, lines and other people do to a user's audio.

Every function takes and gives mono float32 of 24 kHz and one length, and moves nothing in time:
labels of the clean audio stay true. Levels are relative to the speech in it, not to its silence;
audio without sound comes back as it was.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from jaxtyping import Float32
from scipy.signal import oaconvolve

from grpo.segments import SAMPLE_RATE
from mimi_jax.audio_file import resample

Pcm = Float32[np.ndarray, " S"]

_FRAME = SAMPLE_RATE // 50  # levels are measured in 20 ms
_SPEECH_DB = 30.0  # frames this far below the loudest are no speech
_HUM_HZ, _HUM_HARMONICS = (50.0, 60.0), 6
_ECHO_DB = (-18.0, -6.0)  # energy of a room's tail relative to the direct sound
_TELEPHONE_RATE, _MU = 8_000, 255.0
_PACKET_S = (0.02, 0.08)


def speech_rms(pcm: Pcm) -> float:
    """Root mean square of what is not silence; 0 where there is no sound."""
    frames = pcm[: len(pcm) // _FRAME * _FRAME].reshape(-1, _FRAME)
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    if power.size == 0 or power.max() == 0:
        return 0.0
    return math.sqrt(power[power >= power.max() * 10 ** (-_SPEECH_DB / 10)].mean())


def white_noise(pcm: Pcm, snr_db: float, rng: np.random.Generator) -> Pcm:
    """Hiss."""
    return _add(pcm, rng.standard_normal(len(pcm), np.float32), -snr_db)


def pink_noise(pcm: Pcm, snr_db: float, rng: np.random.Generator) -> Pcm:
    """Noise with the same power in every octave: wind, traffic, a crowd far away."""
    # Made twice as long and cut: what the transform makes is a circle.
    spectrum = scipy.fft.rfft(rng.standard_normal(2 * len(pcm), np.float32))
    hz = scipy.fft.rfftfreq(2 * len(pcm), 1 / SAMPLE_RATE)
    spectrum /= np.sqrt(np.maximum(hz, 20.0)).astype(np.float32)
    return _add(pcm, scipy.fft.irfft(spectrum, 2 * len(pcm))[: len(pcm)], -snr_db)


def hum(pcm: Pcm, snr_db: float, rng: np.random.Generator) -> Pcm:
    """The mains, with harmonics."""
    time_s = np.arange(len(pcm)) / SAMPLE_RATE
    base_hz = rng.choice(_HUM_HZ)
    phases = rng.uniform(0, 2 * np.pi, _HUM_HARMONICS)
    tones = [
        np.sin(2 * np.pi * n * base_hz * time_s + phase) / n for n, phase in enumerate(phases, 1)
    ]
    return _add(pcm, np.sum(tones, axis=0), -snr_db)


def talker(
    pcm: Pcm, level_db: float, rng: np.random.Generator, other: Float32[np.ndarray, " T"]
) -> Pcm:
    """Somebody else speaks in the room; `other` is repeated or cut to length."""
    if len(other) == 0:
        return pcm
    start = int(rng.integers(len(other)))
    return _add(pcm, np.resize(np.roll(other, -start), len(pcm)), level_db)


def reverb(pcm: Pcm, decay_s: float, rng: np.random.Generator) -> Pcm:
    """A room that dies away by 60 dB in `decay_s`: the direct sound, then decaying noise."""
    time_s = np.arange(1, round(decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay_s)
    energy = 10 ** (rng.uniform(*_ECHO_DB) / 10)
    tail *= math.sqrt(energy / max(np.square(tail).sum(), 1e-12))
    room = np.concatenate([[1.0], tail]).astype(np.float32)
    return oaconvolve(pcm, room)[: len(pcm)].astype(np.float32)


def telephone(pcm: Pcm, bits: float, rng: np.random.Generator) -> Pcm:
    """8 kHz, each sample in 8 bits of mu-law (ITU-T G.711's curve); fewer bits are a worse line."""
    narrow = resample(pcm[None], SAMPLE_RATE, _TELEPHONE_RATE)[0].clip(-1, 1)
    steps = 2 ** (bits - 1)
    curved = np.sign(narrow) * np.log1p(_MU * np.abs(narrow)) / np.log1p(_MU)
    curved = np.rint(curved * steps) / steps
    narrow = np.sign(curved) * np.expm1(np.abs(curved) * np.log1p(_MU)) / _MU
    wide = resample(narrow[None].astype(np.float32), _TELEPHONE_RATE, SAMPLE_RATE)[0]
    return np.pad(wide, (0, max(0, len(pcm) - len(wide))))[: len(pcm)]


def packet_loss(pcm: Pcm, share: float, rng: np.random.Generator) -> Pcm:
    """Packets of 20 to 80 ms, of which a share never comes: silence in their place."""
    lossy, start = pcm.copy(), 0
    while start < len(pcm):
        stop = start + round(rng.uniform(*_PACKET_S) * SAMPLE_RATE)
        if rng.random() < share:
            lossy[start:stop] = 0
        start = stop
    return lossy


def gain(pcm: Pcm, gain_db: float, rng: np.random.Generator) -> Pcm:
    """Louder or quieter; what exceeds full scale is cut off, as a sound card does."""
    return (pcm * np.float32(10 ** (gain_db / 20))).clip(-1, 1)


def clipping(pcm: Pcm, level_db: float, rng: np.random.Generator) -> Pcm:
    """An amplifier that cuts off at `level_db` (below 0) of the loudest sample."""
    limit = np.float32(np.abs(pcm).max(initial=0.0) * 10 ** (level_db / 20))
    return pcm.clip(-limit, limit)


def _add(pcm: Pcm, sound: np.ndarray, level_db: float) -> Pcm:
    """With another sound, so much louder than the speech."""
    there, own = speech_rms(np.asarray(sound, np.float32)), speech_rms(pcm)
    if there == 0:
        return pcm
    return pcm + (sound * (own / there * 10 ** (level_db / 20))).astype(np.float32)
