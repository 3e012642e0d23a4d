"""Where speech really begins and ends, near where the detector says so.

The detector hears in hops of 32 ms, remembers, and pads: on clean speech its ends lie 80 ms late in
the median (and up to 130 ms), its onsets 20 ms early. A delay that is rewarded counts from the end
of a turn, so the ends are moved in to where the level falls away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from rewards.intervals import Interval
from rewards.vad import SAMPLE_RATE

FRAME_SAMPLES = 160  # 10 ms at 16 kHz
_FRAME_S = FRAME_SAMPLES / SAMPLE_RATE
_REACH_S = 0.15  # an edge is not moved further than this
_FLOOR_QUANTILE, _ABOVE_FLOOR = 0.1, 4.0  # the room is the quietest tenth; speech is 6 dB louder
_HIGHEST_DB = 20.0  # what is this near to the mean of an IPU is speech in any room


def frame_energy(pcm: Float32[np.ndarray, "C S"]) -> Float32[np.ndarray, "C F"]:
    """Energy of each whole 10 ms of audio at 16 kHz."""
    frames = pcm[:, : pcm.shape[1] // FRAME_SAMPLES * FRAME_SAMPLES]
    frames = frames.reshape(len(pcm), -1, FRAME_SAMPLES)
    return np.einsum("cfs,cfs->cf", frames, frames)


def refine_edges(
    ipus: Sequence[Interval], energy: Float32[np.ndarray, " F"], edge_db: float
) -> list[Interval]:
    """Moves both edges of each IPU inwards, to its first and last 10 ms that are loud enough.

    Loud enough is louder than the room and not too far below the mean of the IPU. In a loud room
    nothing moves: the edges stay the detector's.

    Args:
        ipus: of one channel, seconds.
        energy: of that channel, of `frame_energy`.
        edge_db: how far below the mean of an IPU its softest ending may lie.
    """
    refined = []
    reach = round(_REACH_S / _FRAME_S)
    room = _ABOVE_FLOOR * np.quantile(energy, _FLOOR_QUANTILE) if len(energy) else 0.0
    for start_s, end_s in ipus:
        first, last = round(start_s / _FRAME_S), min(round(end_s / _FRAME_S), len(energy))
        frames = energy[first:last]
        if len(frames) and (mean := frames.mean()) > 0:
            softest, loudest = mean * 10 ** (-edge_db / 10), mean * 10 ** (-_HIGHEST_DB / 10)
            loud = np.flatnonzero(frames >= np.clip(room, softest, max(softest, loudest)))
            begin, stop = min(loud[0], reach), max(loud[-1] + 1, len(frames) - reach)
            if begin < stop:
                start_s = (first + begin) * _FRAME_S if begin else start_s
                end_s = (first + stop) * _FRAME_S if stop < len(frames) else end_s
        refined.append((float(start_s), float(end_s)))
    return refined
