"""Corpus `moshi-finetune`: the layout of kyutai-labs/moshi-finetune.

A `.jsonl` names stereo files, `{"path": "a.wav", "duration": 24.5}`, relative to itself. Left is
Moshi, right the user. Beside each lies `a.json` with
`{"alignments": [["word", [start, end], "SPEAKER_MAIN"], ...]}`, the words of the left channel.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

from grpo.corpora.recording import BadFile, Listing, TwoTranscripts, Word, checked_words
from grpo.corpora.stereo import stereo_recording

_MAIN = "SPEAKER_MAIN"


def list_moshi_finetune(source: Path) -> Listing:
    """The recordings of one `.jsonl`, or of all in a folder.

    Raises:
        FileNotFoundError: no `.jsonl` there.
    """
    tables = sorted(source.rglob("*.jsonl")) if source.is_dir() else [source]
    if not tables or not tables[0].is_file():
        raise FileNotFoundError(
            f"cannot read {source}: got no .jsonl there, expected lines of"
            ' {"path": ..., "duration": ...}; check the path'
        )
    root = source if source.is_dir() else source.parent
    listing, seen = Listing(), set[Path]()
    for table in tables:
        for number, line in enumerate(table.read_bytes().splitlines(), 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                path = table.parent / entry["path"]
            except (ValueError, TypeError, KeyError) as error:
                reason = f"got {error!r}, expected an object with a path"
                listing.bad.append(BadFile(f"{table.name}:{number}", reason))
                continue
            if path in seen:
                continue
            seen.add(path)
            sidecar = path.with_suffix(".json")
            transcript = partial(read_alignments, sidecar) if sidecar.is_file() else None
            name = Path(os.path.relpath(path, root)).as_posix()
            listing.recordings.append(stereo_recording(name, path, transcript=transcript))
    return listing


def read_alignments(path: Path) -> TwoTranscripts:
    """The words of a sidecar: those of the main speaker are on the left channel.

    Raises:
        ValueError: broken JSON, no alignments, or impossible times.
    """
    channels: TwoTranscripts = ([], [])
    try:
        for text, (start_s, end_s), speaker in json.loads(path.read_bytes())["alignments"]:
            words = channels[0 if speaker == _MAIN else 1]
            words.append(Word(str(text), float(start_s), float(end_s)))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: got {error!r}, expected alignments of [word, [start, end], speaker]"
        ) from error
    return checked_words(channels[0]), checked_words(channels[1])
