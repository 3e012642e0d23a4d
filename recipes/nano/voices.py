"""How the two speakers sound.

The agent has one voice without melody (see `recipes.nano.vocoder`). The user has a melody that
tells whether a part is the last one: pitch falls on the last word of a turn; before a pause it
stays level and the last word, often a filler, is drawn out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from moshi_jax.nano.bank import Timed
from moshi_jax.nano.sentences import Ending
from recipes.nano.speech import FRAME_SAMPLES, SAMPLE_RATE, Spoken, Voice
from recipes.nano.vocoder import PERIOD, vocode

AGENT_PITCH_HZ = SAMPLE_RATE / PERIOD
AGENT_STRETCH, BACKCHANNEL_STRETCH = 1.15, 1.3
"""Durations of the agent's speech; a "yeah" of less than 0.3 s is lost on a voice detector."""
LEVEL_RMS = 0.06
"""Root mean square of every utterance."""
LEVEL_PITCH = 1.05
FALL_PITCH = (0.95, 0.62)
"""Of the first and the last phone of the last word, against the pitch before it."""
DRAWN_OUT = 1.7
"""Duration of the last word before a pause, against its usual one."""
FADE_SAMPLES = 80


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How the user speaks today."""

    pitch_hz: float
    stretch: float


MANNERS = (Manner(pitch_hz=190.0, stretch=1.0), Manner(pitch_hz=172.0, stretch=1.12))


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A stretch of one rendition of the text."""

    spoken: Spoken
    start_s: float
    end_s: float


def agent_says(voice: Voice, text: str, *, stretch: float = AGENT_STRETCH) -> Spoken:
    """`text` in the agent's voice; sounds the same in every run."""
    spoken = voice.say(text, pitch_hz=AGENT_PITCH_HZ, stretch=stretch)
    trimmed = _join([_whole(spoken)], spoken)
    return Spoken(pcm=_levelled(vocode(trimmed.pcm)), words=trimmed.words, phones=trimmed.phones)


def user_says(voice: Voice, text: str, ending: Ending, manner: Manner) -> Spoken:
    """`text` in the user's voice with the melody of `ending`."""

    def say(pitch: float, stretch: float = 1.0) -> Spoken:
        return voice.say(text, pitch_hz=pitch * manner.pitch_hz, stretch=stretch * manner.stretch)

    base = say(LEVEL_PITCH if ending == "level" else 1.0)
    last, whole = base.words[-1], _whole(base)
    pieces = []
    if len(base.words) > 1:
        pieces.append(_Piece(spoken=base, start_s=whole.start_s, end_s=last.start_s))
    if ending == "level":
        slow = say(LEVEL_PITCH, DRAWN_OUT)
        pieces.append(_Piece(spoken=slow, start_s=slow.words[-1].start_s, end_s=_whole(slow).end_s))
    else:
        phones = [p for p in base.phones if last.start_s <= p.start_s < last.end_s - 1e-4]
        for phone, pitch in zip(phones, np.linspace(*FALL_PITCH, len(phones)), strict=True):
            pieces.append(
                _Piece(spoken=say(float(pitch)), start_s=phone.start_s, end_s=phone.end_s)
            )
    joined = _join(pieces, base)
    return Spoken(pcm=_levelled(joined.pcm), words=joined.words, phones=joined.phones)


def _whole(spoken: Spoken) -> _Piece:
    """The utterance without its silent ends."""
    return _Piece(spoken=spoken, start_s=spoken.words[0].start_s, end_s=spoken.words[-1].end_s)


def _join(pieces: Sequence[_Piece], base: Spoken) -> Spoken:
    """Renditions of one text cut on the 5 ms grid and cross-faded, with the times that result.

    Args:
      pieces: stretches of whole phones that follow each other in the text.
      base: says which words and phones there are.
    """
    ramp, half = np.sin(np.linspace(0, np.pi / 2, FADE_SAMPLES)) ** 2, FADE_SAMPLES // 2
    pcm, phones = np.zeros(FADE_SAMPLES, np.float32), []
    for piece in pieces:
        first, last = (
            FRAME_SAMPLES * round(at * SAMPLE_RATE / FRAME_SAMPLES)
            for at in (piece.start_s, piece.end_s)
        )
        sound = np.pad(piece.spoken.pcm, half)[first : last + FADE_SAMPLES].copy()
        sound[:FADE_SAMPLES] *= ramp
        sound[-FADE_SAMPLES:] *= ramp[::-1]
        at = pcm.size - FADE_SAMPLES
        shift = (at + half) / SAMPLE_RATE - piece.start_s
        pcm = np.pad(pcm, (0, sound.size - FADE_SAMPLES))
        pcm[at:] += sound
        phones += [
            Timed(name, start_s + shift, end_s + shift)
            for name, start_s, end_s in piece.spoken.phones
            if piece.start_s <= (start_s + end_s) / 2 < piece.end_s
        ]
    return Spoken(pcm=pcm, words=_words_of(phones, base), phones=tuple(phones))


def _words_of(phones: Sequence[Timed], base: Spoken) -> tuple[Timed, ...]:
    """The words of `base` at the times of `phones`, which are the same ones at other times."""
    names = [phone.name for phone in base.phones if phone.name != "pau"]
    if names != [phone.name for phone in phones]:
        raise ValueError(f"the pieces say {[p.name for p in phones]}, expected {names}")
    words, taken = [], 0
    for word in base.words:
        count = sum(word.start_s <= (p.start_s + p.end_s) / 2 < word.end_s for p in base.phones)
        inside = phones[taken : taken + count]
        words.append(Timed(word.name, inside[0].start_s, inside[-1].end_s))
        taken += count
    return tuple(words)


def _levelled(pcm: Float32[np.ndarray, " S"]) -> Float32[np.ndarray, " S"]:
    return pcm * np.float32(LEVEL_RMS / np.sqrt(np.mean(np.square(pcm))))
