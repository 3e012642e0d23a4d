"""Corpus `candor`: BetterUp's CANDOR, a folder a conversation.

    <id>/processed/<id>.mp3                        a speaker on each channel (WAV, FLAC copies too)
    <id>/metadata.json                             {"speakers": [{"user_id": ..., "channel": "L"}]}
    <id>/transcription/channel_map.json            {"L": user, "R": user}, if there is no metadata
    <id>/transcription/transcript_audiophile.csv   speaker, start, stop, utterance

Test items of Full-Duplex-Bench come from this corpus: a model trained on it should not be judged by
their pause and turn columns.
"""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

from grpo.corpora.recording import BadFile, Listing, TwoTranscripts, Word, checked_words
from grpo.corpora.stereo import stereo_recording

_SUFFIXES = (".wav", ".flac", ".mp3")
_TRANSCRIPT = "transcript_audiophile.csv"


def list_candor(source: Path) -> Listing:
    """The conversations below `source`.

    Raises:
        FileNotFoundError: no conversation there.
    """
    listing = Listing()
    for processed in sorted(path for path in source.rglob("processed") if path.is_dir()):
        folder = processed.parent
        candidates = [processed / f"{folder.name}{suffix}" for suffix in _SUFFIXES]
        audio = next((path for path in candidates if path.is_file()), None)
        if audio is None:
            reason = f"got no processed/{folder.name} of {', '.join(_SUFFIXES)}, expected one"
            listing.bad.append(BadFile(folder.name, reason))
            continue
        try:
            speakers = read_channel_map(folder)
        except ValueError as error:
            listing.bad.append(BadFile(folder.name, str(error)))
            continue
        text = folder / "transcription" / _TRANSCRIPT
        transcript = partial(read_transcript, text, speakers) if text.is_file() else None
        listing.recordings.append(
            stereo_recording(folder.name, audio, speakers=speakers, transcript=transcript)
        )
    if not listing.recordings and not listing.bad:
        raise FileNotFoundError(
            f"cannot read {source}: got no folder with processed/<id>.mp3, expected the"
            " conversations of CANDOR; check the path"
        )
    return listing


def read_channel_map(folder: Path) -> tuple[str, str]:
    """The users on the left and on the right channel.

    Raises:
        ValueError: neither file is there, broken JSON, or not a user for each channel.
    """
    metadata, table = folder / "metadata.json", folder / "transcription" / "channel_map.json"
    try:
        if metadata.is_file():
            users = json.loads(metadata.read_bytes())["speakers"]
            channels = {user["channel"]: user["user_id"] for user in users}
        elif table.is_file():
            channels = json.loads(table.read_bytes())
        else:
            raise ValueError("neither metadata.json nor transcription/channel_map.json")
        return str(channels["L"]), str(channels["R"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{folder.name}: got {error!r} for the channel map, expected a user for L and for R"
        ) from error


def read_transcript(path: Path, speakers: tuple[str, str]) -> TwoTranscripts:
    """What both users say, by turns.

    Raises:
        ValueError: a column is missing, another speaker, or impossible times.
    """
    channels: TwoTranscripts = ([], [])
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                channels[speakers.index(row["speaker"])].append(
                    Word(row["utterance"], float(row["start"]), float(row["stop"]))
                )
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(
            f"{path}: got {error!r}, expected speaker, start, stop, utterance of the two users"
        ) from error
    return checked_words(channels[0]), checked_words(channels[1])
