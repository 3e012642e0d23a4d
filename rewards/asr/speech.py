"""Transcribe speech, and only speech: recognizers make up words for silence."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from rewards.asr.cache import TranscriptCache, clip_key
from rewards.asr.protocol import SAMPLE_RATE, Recognizer, Transcript
from rewards.intervals import Interval, utterances

MAX_CLIP_S = 20.0
"""Longer utterances are heard in parts, cut at their widest pauses."""

MARGIN_S = 0.1
"""Heard before and after an utterance: the detector's ends are not the words' ends."""

Heard = tuple[float, Transcript | None]
"""Start of an utterance in the recording, in seconds, and its transcript; None = missing."""


def transcribe_speech(
    recognizer: Recognizer,
    rows: Sequence[Float32[np.ndarray, "..."]],
    speech: Sequence[Sequence[Interval]],
    *,
    cache: TranscriptCache | None = None,
) -> list[list[Heard]]:
    """Transcripts of the utterances of every row.

    Args:
        recognizer: who hears.
        rows: 16 kHz audio, a vector each, of any lengths.
        speech: for every row its speech intervals in seconds (`detect_speech`).
        cache: looked up first, and given what is new. Equal clips are heard once either way.

    Returns:
        For every row its utterances in order. A row without speech has none.

    Raises:
        ValueError: not one list of intervals a row.
    """
    if len(rows) != len(speech):
        raise ValueError(f"{len(speech)} lists of speech for {len(rows)} rows, expected one each")
    cache = cache or TranscriptCache()
    places: list[list[tuple[float, str]]] = []
    clips: dict[str, Float32[np.ndarray, " S"]] = {}
    for row, intervals in zip(rows, speech, strict=True):
        places.append([])
        for start, end in clip_spans(intervals):
            clip = _cut(row, start, end)
            key = clip_key(recognizer, clip)
            places[-1].append((start, key))
            clips[key] = clip
    known = {key: found for key in clips if (found := cache.get(key)) is not None}
    # The longest first: a pool is then never left waiting for a long one that came last.
    new = sorted((key for key in clips if key not in known), key=lambda key: -len(clips[key]))
    heard = recognizer.transcribe([clips[key] for key in new]) if new else []
    for key, transcript in zip(new, heard, strict=True):
        if transcript is not None:
            cache.add(key, transcript)
            known[key] = transcript
    return [[(start, known.get(key)) for start, key in row] for row in places]


def clip_spans(intervals: Sequence[Interval], max_s: float = MAX_CLIP_S) -> list[Interval]:
    """Utterances; one longer than `max_s` is split at its widest pauses, as far as it has any."""
    spans: list[Interval] = []
    for start, end in utterances(intervals):
        parts = [part for part in sorted(intervals) if start <= part[0] and part[1] <= end]
        spans += _split(parts, max_s)
    return spans


def _split(parts: list[Interval], max_s: float) -> list[Interval]:
    if parts[-1][1] - parts[0][0] <= max_s or len(parts) == 1:
        return [(parts[0][0], parts[-1][1])]
    at = max(range(1, len(parts)), key=lambda i: parts[i][0] - parts[i - 1][1])
    return _split(parts[:at], max_s) + _split(parts[at:], max_s)


def _cut(row: Float32[np.ndarray, " S"], start_s: float, end_s: float) -> Float32[np.ndarray, " C"]:
    first = max(0, round((start_s - MARGIN_S) * SAMPLE_RATE))
    return row[first : round((end_s + MARGIN_S) * SAMPLE_RATE)]
