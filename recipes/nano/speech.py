"""flite by ctypes: a text to samples, with the times of its words and phones.

The library and its voices come from the Debian package `libflite1`; nothing is compiled. Only the
recording of the bank needs them, all later steps read the bank.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from moshi_jax.nano.bank import Timed

SAMPLE_RATE = 16_000
"""Hz, of all four voices."""
FRAME_SAMPLES = 80
"""The statistical voices change their sound every 5 ms; phones begin and end on this grid."""


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """One utterance.

    Attributes:
      pcm: float32 [S] at 16 kHz.
      words: in order; the times tile the utterance without its silent ends.
      phones: in order, silences ("pau") at both ends included.
    """

    pcm: Float32[np.ndarray, " S"]
    words: tuple[Timed, ...]
    phones: tuple[Timed, ...]


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _VoiceHead(ctypes.Structure):
    """The beginning of a `cst_voice`."""

    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


_pointer, _text, _real = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float
_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "flite_init": (ctypes.c_int, []),
    "flite_synth_text": (_pointer, [_text, _pointer]),
    "utt_wave": (ctypes.POINTER(_Wave), [_pointer]),
    "utt_relation": (_pointer, [_pointer, _text]),
    "relation_head": (_pointer, [_pointer]),
    "item_next": (_pointer, [_pointer]),
    "flite_ffeature_string": (_text, [_pointer, _text]),
    "flite_ffeature_float": (_real, [_pointer, _text]),
    "flite_feat_set_float": (None, [_pointer, _text, _real]),
    "delete_utterance": (None, [_pointer]),
}


def _load(name: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise FileNotFoundError(
            f"cannot load {name} ({error}); expected flite 2 and its voices: apt-get install "
            "libflite1"
        ) from error


@functools.cache
def _flite() -> ctypes.CDLL:
    library = _load("libflite.so.1")
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.flite_init()
    return library


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class Voice:
    """One voice of flite.

    Args:
      name: "slt" (female), "rms", "awb" (male; statistical) or "kal16" (male; diphones).

    Raises:
      FileNotFoundError: the library of flite or of the voice is not installed.
    """

    def __init__(self, name: str) -> None:
        self._flite = _flite()
        register = getattr(_load(f"libflite_cmu_us_{name}.so.1"), f"register_cmu_us_{name}")
        register.restype, register.argtypes = _pointer, [_text]
        self._voice = register(None)
        self._features = ctypes.cast(self._voice, ctypes.POINTER(_VoiceHead)).contents.features

    def say(self, text: str, *, pitch_hz: float, stretch: float = 1.0) -> Spoken:
        """Speaks `text`.

        Args:
          text: English words.
          pitch_hz: mean pitch; it does not move around it (standard deviation 0).
          stretch: durations are multiplied by it.

        Raises:
          ValueError: nothing in the text is spoken.
        """
        for feature, value in (
            (b"int_f0_target_mean", pitch_hz),
            (b"int_f0_target_stddev", 0.0),
            (b"duration_stretch", stretch),
        ):
            self._flite.flite_feat_set_float(self._features, feature, value)
        _libc().srand(
            0
        )  # flite takes the noise in its excitation from rand(): same text, same sound
        utterance = self._flite.flite_synth_text(text.encode(), self._voice)
        if not utterance:
            raise ValueError(f"flite could not speak {text!r}; give English words")
        try:
            wave = self._flite.utt_wave(utterance).contents
            samples = np.ctypeslib.as_array(wave.samples, (wave.num_samples,))
            pcm = samples.astype(np.float32) / 32768
            phones, now = [], 0.0
            for item in self._items(utterance, b"Segment"):
                start, now = now, self._float(item, b"end")
                phones.append(Timed(self._string(item, b"name"), start, now))
            words = tuple(
                Timed(
                    self._string(item, b"name").removeprefix("_"),  # "_a" is how it says "a" here
                    self._float(item, b"R:SylStructure.daughter1.daughter1.R:Segment.p.end"),
                    self._float(item, b"R:SylStructure.daughtern.daughtern.R:Segment.end"),
                )
                for item in self._items(utterance, b"Word")
            )
        finally:
            self._flite.delete_utterance(utterance)
        if not words:
            raise ValueError(f"flite found no word in {text!r}; give English words")
        return Spoken(pcm=pcm, words=words, phones=tuple(phones))

    def _items(self, utterance: int, relation: bytes) -> list[int]:
        items = []
        item = self._flite.relation_head(self._flite.utt_relation(utterance, relation))
        while item:
            items.append(item)
            item = self._flite.item_next(item)
        return items

    def _string(self, item: int, feature: bytes) -> str:
        return self._flite.flite_ffeature_string(item, feature).decode()

    def _float(self, item: int, feature: bytes) -> float:
        return float(self._flite.flite_ffeature_float(item, feature))
