"""Corpus `seamless`: Meta's Seamless Interaction, in its tars or unpacked.

One participant a file, `V<vendor>_S<session>_I<interaction>_P<participant>.wav`, 48 kHz, with a
`.json` beside it (`metadata:transcript`: phrases with `words` of `word`, `start`, `end`). The two
files of an interaction are paired by their common name. Tars are read where they lie: only the
headers of their members are looked at, video is skipped.
"""

from __future__ import annotations

import json
import re
import tarfile
from functools import partial
from pathlib import Path

from grpo.corpora.pcm import AudioRef
from grpo.corpora.recording import (
    BadFile,
    Listing,
    Recording,
    TwoTranscripts,
    Word,
    checked_words,
)

_MEMBER = re.compile(r"(V\d+_S\d+_I\d+)_P(\w+)\.(wav|json)")


def list_seamless(source: Path) -> Listing:
    """The interactions with two participants below `source`, or in one tar.

    Raises:
        FileNotFoundError: no participant's audio there.
    """
    files: dict[str, dict[str, dict[str, AudioRef]]] = {}  # interaction, participant, kind
    listing = Listing()
    paths = [source] if source.is_file() else sorted(source.rglob("*"))
    for path in paths:
        if path.suffix == ".tar":
            try:
                members = _members(path)
            except (tarfile.TarError, OSError, EOFError) as error:
                listing.bad.append(BadFile(path.name, f"got {error}, expected a whole tar"))
                continue
        else:
            members = {path.name: AudioRef(path)}
        for name, ref in members.items():
            if match := _MEMBER.fullmatch(name):
                interaction, participant, kind = match.groups()
                files.setdefault(interaction, {}).setdefault(participant, {})[kind] = ref
    for interaction, participants in sorted(files.items()):
        heard = {name: kinds for name, kinds in sorted(participants.items()) if "wav" in kinds}
        if len(heard) != 2:
            reason = f"got audio of {len(heard)} participant(s), expected 2"
            listing.bad.append(BadFile(interaction, reason))
            continue
        (one, other), names = heard.values(), tuple(heard)
        texts = [kinds["json"] for kinds in (one, other) if "json" in kinds]
        listing.recordings.append(
            Recording(
                name=interaction,
                channels=((one["wav"], 0), (other["wav"], 0)),
                speakers=(names[0], names[1]),
                transcript=partial(read_transcripts, *texts) if len(texts) == 2 else None,
            )
        )
    if not files:
        raise FileNotFoundError(
            f"cannot read {source}: got no V*_S*_I*_P*.wav there or in a tar, expected Seamless"
            " Interaction; check the path"
        )
    return listing


def read_transcripts(first: AudioRef, second: AudioRef) -> TwoTranscripts:
    """The words of both participants.

    Raises:
        ValueError: broken JSON, or impossible times.
    """
    return _words(first), _words(second)


def _words(ref: AudioRef) -> list[Word]:
    try:
        phrases = json.loads(ref.read_bytes()).get("metadata:transcript") or []
        return checked_words(
            [
                Word(str(word["word"]), float(word["start"]), float(word["end"]))
                for phrase in phrases
                for word in phrase.get("words") or []
                # Words that the aligner could not place have no times.
                if word.get("start") is not None and word.get("end") is not None
            ]
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{ref}: got {error!r}, expected metadata:transcript with words of word, start, end"
        ) from error


def _members(path: Path) -> dict[str, AudioRef]:
    with tarfile.open(path, "r:") as tar:
        return {
            Path(member.name).name: AudioRef(path, member.offset_data, member.size)
            for member in tar
            if member.isreg()
        }
