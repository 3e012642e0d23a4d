"""Corpus `fisher`: Fisher English Training, LDC2004S13 and LDC2005S13 with LDC2004T19, LDC2005T19.

.../audio/<3 digits>/fe_03_NNNNN.sph   two channels of 8 kHz (A, B); WAV and FLAC copies too
.../trans/<3 digits>/fe_03_NNNNN.txt   lines of `start end A: text`
.../doc/*_calldata.tbl                 commas; call, ..., speaker A (5), ..., speaker B (10)
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from grpo.corpora.recording import BadFile, Listing, TwoTranscripts, Word, checked_words
from grpo.corpora.stereo import stereo_recording

_CALL = re.compile(r"fe_03_(\d{5})")
_SUFFIXES = (".sph", ".wav", ".flac")
_SPEAKER_A, _SPEAKER_B = 5, 10  # columns of the call table
_LINE = re.compile(r"(\S+)\s+(\S+)\s+([AB])\S*:\s*(.*)")
# One start in the published transcripts lost its first digit.
_MISPRINT = {("11487", 31.09, 234.06): 231.09}


def list_fisher(source: Path) -> Listing:
    """The calls of all discs below `source`.

    Raises:
        FileNotFoundError: no call there.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(source.rglob("fe_03_*")):
        match = _CALL.fullmatch(path.stem)
        if match and path.suffix in (*_SUFFIXES, ".txt") and path.is_file():
            found.setdefault(match[1], {})[path.suffix] = path
    speakers = _speakers(source)
    listing = Listing()
    for call, files in sorted(found.items()):
        audio = next((files[suffix] for suffix in _SUFFIXES if suffix in files), None)
        name = f"fe_03_{call}"
        if audio is None:
            listing.bad.append(BadFile(name, "got a transcript only, expected audio of the call"))
            continue
        listing.recordings.append(
            stereo_recording(
                name,
                audio,
                speakers=speakers.get(call, (None, None)),
                transcript=partial(read_transcript, files[".txt"]) if ".txt" in files else None,
            )
        )
    if not listing.recordings:
        raise FileNotFoundError(
            f"cannot read {source}: got no fe_03_NNNNN with audio, expected a folder with the discs"
            " of Fisher English; check the path"
        )
    return listing


def read_transcript(path: Path) -> TwoTranscripts:
    """What both speakers of a call say, by utterances.

    Raises:
        ValueError: a line that is none of an utterance, or impossible times.
    """
    channels: TwoTranscripts = ([], [])
    call = path.stem.rpartition("_")[2]
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            start, end, speaker, text = _LINE.fullmatch(line.strip()).groups()  # pyrefly: ignore
            times = float(start), float(end)
        except (AttributeError, ValueError) as error:
            raise ValueError(
                f"{path}: got {line!r} in line {number}, expected `start end A: text`"
            ) from error
        start_s = _MISPRINT.get((call, *times), times[0])
        channels["AB".index(speaker)].append(Word(text, start_s, times[1]))
    return checked_words(channels[0]), checked_words(channels[1])


def _speakers(source: Path) -> dict[str, tuple[str, str]]:
    """Call to the numbers of its speakers, out of the tables of calls."""
    speakers = {}
    for table in sorted(source.rglob("*_calldata.tbl")):
        for line in table.read_text("utf-8", errors="replace").splitlines():
            columns = [column.strip() for column in line.split(",")]
            if columns[0].isdigit() and len(columns) > _SPEAKER_B:
                speakers[columns[0].zfill(5)] = (columns[_SPEAKER_A], columns[_SPEAKER_B])
    return speakers
