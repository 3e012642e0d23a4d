"""First pass of an extraction: every recording is heard once, and what it says is written down.

The notes are a line of JSON a recording, so that a run that was killed goes on where it was.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpo.corpora import Recording, Word
from grpo.ipus import Heard, SpeechConfig, hear
from grpo.workers import WorkerDied, run_all
from rewards.intervals import Interval, clip, merge, total_s
from rewards.vad import load_vad

_MIN_FIT = 0.5  # of a transcript's time must be speech, give or take _FIT_SLACK_S
_FIT_SLACK_S = 0.3
_LEAST_WORDS_S = 5.0  # with less to compare, a transcript is believed
# What a damaged file does to a decoder: the other recordings are still good. Anything else is a
# bug, and a run full of it must not look like a corpus full of bad files.
_DAMAGE = (ValueError, OSError, EOFError, RuntimeError, MemoryError, subprocess.SubprocessError)


@dataclass(frozen=True, kw_only=True)
class Note:
    """What became of one recording.

    Attributes:
        name: of the recording.
        stamp: size and time of its files; another one means that it has to be heard again.
        heard: None if it could not be used.
        error: why not.
        transcript_error: why its transcript cannot be used.
    """

    name: str
    stamp: list[list[int]]
    heard: Heard | None = None
    error: str | None = None
    transcript_error: str | None = None

    def to_line(self) -> str:
        """A line of JSON."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Note:
        """Reads `to_line`."""
        values = json.loads(line)
        if values["heard"] is not None:
            heard = values["heard"]
            for name in ("ipus", "ipus_backchannel"):
                heard[name] = tuple([(s, e) for s, e in channel] for channel in heard[name])
            values["heard"] = Heard(**heard | {"lufs": tuple(heard["lufs"])})
        return cls(**values)


@dataclass(frozen=True)
class _Task:
    recording: Recording
    config: SpeechConfig
    scratch: Path


def survey(
    recordings: Sequence[Recording],
    config: SpeechConfig,
    notes: Path,
    *,
    workers: int,
    tell: Callable[[str, int, int], None],
) -> dict[str, Note]:
    """Hears all recordings that are not in the notes yet, and adds them.

    Args:
        recordings: of the corpus.
        config: how they are heard.
        notes: file of lines; temporary audio lies beside it.
        workers: processes.
        tell: is told "listening", recordings done, recordings in all.

    Returns:
        A note for every recording, sorted by name.
    """
    by_name = {recording.name: recording for recording in recordings}
    found = {
        note.name: note
        for note in _read(notes)
        if note.name in by_name and note.stamp == _stamp(by_name[note.name])
    }
    tasks = [_Task(r, config, notes.parent) for r in recordings if r.name not in found]
    done = len(found)
    if done:
        tell("listening", done, len(by_name))
    with open(notes, "a", encoding="utf-8") as file:
        for task, note in run_all(_take_note, tasks, workers=workers):
            if isinstance(note, WorkerDied):
                note = Note(name=task.recording.name, stamp=_stamp(task.recording), error=str(note))
            file.write(note.to_line())
            file.flush()
            found[note.name] = note
            done += 1
            tell("listening", done, len(by_name))
    return dict(sorted(found.items()))


def _take_note(task: _Task) -> Note:
    recording = task.recording
    about: dict[str, Any] = {"name": recording.name, "stamp": _stamp(recording)}
    try:
        with recording.open() as pcm:
            heard = hear(
                _vad(), pcm, task.config, two_files=recording.two_files, scratch=task.scratch
            )
    except _DAMAGE as error:
        return Note(**about, error=str(error) or repr(error))
    return Note(**about, heard=heard, transcript_error=_transcript_error(recording, heard))


def _transcript_error(recording: Recording, heard: Heard) -> str | None:
    if recording.transcript is None:
        return None
    try:
        channels = recording.transcript()
    except (ValueError, OSError) as error:
        return str(error)
    for channel, (words, ipus) in enumerate(zip(channels, heard.ipus_backchannel, strict=True)):
        fit, all_s = _fit(words, ipus)
        if all_s >= _LEAST_WORDS_S and fit < _MIN_FIT:
            return (
                f"got words on channel {channel} of which {fit:.0%} are where speech is heard,"
                f" expected at least {_MIN_FIT:.0%}; its times or channels are wrong"
            )
    return None


def _fit(words: Sequence[Word], ipus: Sequence[Interval]) -> tuple[float, float]:
    """Which part of the words' time is speech, and how much time that is."""
    speech = merge((start - _FIT_SLACK_S, end + _FIT_SLACK_S) for start, end in ipus)
    spoken = merge((word.start_s, word.end_s) for word in words)
    all_s = total_s(spoken)
    inside_s = sum(total_s(clip(speech, *span)) for span in spoken if span[0] < span[1])
    return (inside_s / all_s if all_s else 1.0), all_s


def _read(notes: Path) -> Iterator[Note]:
    """The notes of a run before; the last line may have been cut off."""
    if not notes.is_file():
        return
    text = notes.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        notes.write_text(whole, encoding="utf-8")
    yield from (Note.from_line(line) for line in whole.splitlines())


def _stamp(recording: Recording) -> list[list[int]]:
    stamps = []
    for path in dict.fromkeys(ref.path for ref, _ in recording.channels):
        try:
            status = os.stat(path)
        except OSError:
            stamps.append([-1, -1])
        else:
            stamps.append([status.st_size, status.st_mtime_ns])
    return stamps


@functools.cache
def _vad() -> dict[str, Any]:
    return load_vad()
