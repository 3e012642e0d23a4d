"""Composed conversations as files: a corpus as moshi-finetune has them, and the segments in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from grpo.extract import ExtractConfig, extract
from grpo.segments import SegmentConfig
from grpo.selection import SelectionConfig
from layers_jax import atomic_path
from mimi_jax import write_audio
from moshi_jax.nano.conversations import SAMPLE_RATE, USER, Habits, Scene, Voices, compose

__all__ = ["EXTRACT", "write_corpus", "write_segments"]

EXTRACT = ExtractConfig(
    corpus="moshi-finetune",
    selection=SelectionConfig(max_per_conversation=1000, val_fraction=0.0),
    segments=SegmentConfig(
        tau_pause_s=1.8,
        tau_turn_s=1.0,
        tau_backchannel_s=5.0,
        tau_interruption_s=0.25,
        max_segment_s=20.0,
        x_channels=(USER,),
    ),
)
"""How segments are cut out of composed conversations: the rules of the paper, with shorter turns,
since nobody here says as much in one breath as people do."""


def write_corpus(
    folder: Path,
    voices: Voices,
    *,
    seed: int,
    count: int,
    seconds: float = 30.0,
    habits: Habits | None = None,
    scenes: Mapping[Scene, float] | None = None,
) -> Path:
    """Conversations in the layout of moshi-finetune, which every command here reads.

    Beside each `NAME.wav` lies `NAME.json`: the words of both speakers as `alignments`, and the
    `events`. A conversation that is there already is left alone, so a stopped run goes on.

    Args:
      folder: where to; made if missing.
      voices: as for `compose`.
      seed: of the corpus.
      count: how many.
      seconds: of each, as for `compose`.
      habits: as for `compose`.
      scenes: as for `compose`.

    Returns:
      The `.jsonl` that lists them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        name = f"{number:05d}"
        wav, sidecar = folder / f"{name}.wav", folder / f"{name}.json"
        if not (wav.is_file() and sidecar.is_file()):
            made = compose(voices, (seed, number), seconds=seconds, habits=habits, scenes=scenes)
            write_audio(wav, np.clip(made.pcm, -1, 1), SAMPLE_RATE)
            alignments = [
                [word.text, [word.start_s, word.end_s], speaker]
                for words, speaker in zip(made.words, ("SPEAKER_MAIN", "SPEAKER_USER"), strict=True)
                for word in words
            ]
            values = {"alignments": alignments, "events": [asdict(e) for e in made.events]}
            with atomic_path(sidecar) as temporary:
                temporary.write_text(json.dumps(values), encoding="utf-8")
        lines.append(json.dumps({"path": wav.name, "duration": seconds}))
    table = folder / "data.jsonl"
    with atomic_path(table) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return table


def write_segments(
    folder: Path, voices: Voices, *, seed: int, count: int, seconds: float = 40.0
) -> dict[str, Any]:
    """Segments of all four axes, cut by `moshi-jax segments extract` from a well-mannered corpus.

    Args:
      folder: gets `conversations/` and `segments/`.
      voices: of the split that is wanted.
      seed: of the corpus.
      count: conversations; 10 of 40 s have about 10 segments of each axis.
      seconds: of each conversation.

    Returns:
      The summary of the extraction.
    """
    habits = Habits.good()
    table = write_corpus(
        folder / "conversations", voices, seed=seed, count=count, seconds=seconds, habits=habits
    )
    return extract(table, folder / "segments", EXTRACT)
