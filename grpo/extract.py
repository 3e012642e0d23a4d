"""From two-channel recordings to a folder of training segments.

Two passes: the first hears every recording and lists all segments; the second reads again only
those recordings of which a segment was selected, and writes the audio.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpo.ipus import SpeechConfig, two_channel_ipus
from grpo.records import (
    CONFIG,
    SCHEMA,
    SUMMARY,
    ManifestEntry,
    ShardWriter,
    cut_record,
    write_manifest,
)
from grpo.segment_rules import extract_segments
from grpo.segments import AXES, SAMPLE_RATE, Segment, SegmentConfig
from grpo.selection import SelectionConfig, select, split_conversations
from layers_jax.files import atomic_path
from mimi_jax.audio_file import read_audio
from rewards.vad import load_vad

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".au")

# Called after every recording: what is done, recordings done, recordings in all.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """What is looked for, how much of it is kept, and what is stored with it."""

    axes: tuple[str, ...] = AXES
    """Which rules are applied."""
    max_context_s: float = 30.0
    """Audio stored before each segment, where the recording has it."""
    store_agent: bool = False
    """Also store what the real partner said."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    segments: SegmentConfig = field(default_factory=SegmentConfig)
    speech: SpeechConfig = field(default_factory=SpeechConfig)

    def __post_init__(self) -> None:
        if not self.axes or not set(self.axes) <= set(AXES):
            raise ValueError(f"axes: got {self.axes}, expected one or more of {', '.join(AXES)}")
        if not 0 <= self.max_context_s < float("inf"):
            raise ValueError(f"max_context_s: got {self.max_context_s}, expected 0 or more seconds")


@dataclass(kw_only=True)
class _Survey:
    """What the first pass found."""

    segments: dict[str, list[Segment]] = field(default_factory=dict)  # of every good recording
    rejects: Counter[str] = field(default_factory=Counter)
    bad_files: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0


def extract(
    source: Path,
    destination: Path,
    config: ExtractConfig | None = None,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Extracts the segments of one recording, or of all in a folder and its subfolders.

    `destination` is complete or not there: ArrayRecord shards per axis and split, `manifest.jsonl`
    (a line a segment), `summary.json` (the returned counts) and `config.json`. The result depends
    on the files and the config only, not on the order of the files.

    Args:
        source: an audio file with one speaker a channel, or a folder of them.
        destination: new folder; parents are made.
        config: defaults if None.
        progress: is told about every recording of both passes.

    Returns:
        Counts of segments by axis and split, of candidates turned down by reason, hours, and the
        files that could not be read.

    Raises:
        FileNotFoundError: `source` does not exist or holds no audio file.
        ValueError: `destination` is not empty, or there was nothing to extract (with the reasons).
        ImportError: the extra `audio` is not installed.
    """
    config = config or ExtractConfig()
    paths = find_audio(source)
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ValueError(
            f"{destination}: got something there already, expected a new or empty folder;"
            " remove it or choose another"
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    tell = progress or (lambda what, done, total: None)
    survey = _survey(paths, config, tell)
    selected = select(survey.segments, config.axes, config.selection)
    if not selected:
        raise ValueError(_nothing(source, survey))
    splits = split_conversations(sorted(survey.segments), config.selection)
    with atomic_path(destination) as folder:
        folder.mkdir()
        entries = _write(folder, paths, selected, splits, config, tell)
        summary = _summary(survey, entries)
        (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        values = json.dumps(dataclasses.asdict(config), indent=1)
        (folder / CONFIG).write_text(values + "\n", encoding="utf-8")
    return summary


def find_audio(source: Path) -> dict[str, Path]:
    """Conversation name (path below `source`) to file, sorted; files of other kinds are no audio.

    Raises:
        FileNotFoundError: nothing there, or no audio file in the folder.
    """
    if source.is_file():
        return {source.name: source}
    if not source.is_dir():
        raise FileNotFoundError(
            f"cannot read {source}: got nothing there, expected an audio file or a folder of them;"
            " check the path"
        )
    paths = {
        path.relative_to(source).as_posix(): path
        for path in sorted(source.rglob("*"))
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()
    }
    if not paths:
        raise FileNotFoundError(
            f"cannot extract from {source}: got no audio file, expected some of"
            f" {', '.join(AUDIO_SUFFIXES)}; check the folder"
        )
    return paths


def _survey(paths: Mapping[str, Path], config: ExtractConfig, tell: Progress) -> _Survey:
    vad, survey = load_vad(), _Survey()
    long_axes = [axis for axis in config.axes if axis != "backchannel"]
    short_axes = [axis for axis in config.axes if axis == "backchannel"]
    for done, (conversation, path) in enumerate(paths.items(), 1):
        try:
            pcm = read_audio(path, sample_rate=SAMPLE_RATE, channels=2)
        except (ValueError, OSError) as error:
            survey.bad_files.append({"file": conversation, "reason": str(error)})
        else:
            survey.seconds += pcm.shape[1] / SAMPLE_RATE
            survey.segments[conversation] = []
            tables = two_channel_ipus(vad, pcm, config.speech)
            for ipus, axes in zip(tables, (long_axes, short_axes), strict=True):
                segments, rejects = extract_segments(
                    ipus, conversation=conversation, config=config.segments, axes=axes
                )
                survey.segments[conversation] += segments
                survey.rejects += rejects
        tell("listening", done, len(paths))
    return survey


def _write(
    folder: Path,
    paths: Mapping[str, Path],
    selected: Iterable[Segment],
    splits: Mapping[str, str],
    config: ExtractConfig,
    tell: Progress,
) -> list[ManifestEntry]:
    """Writes the shards and the manifest; each recording is read once."""
    by_conversation: dict[str, list[Segment]] = {}
    for segment in selected:
        by_conversation.setdefault(segment.conversation, []).append(segment)
    entries, writer = [], ShardWriter(folder)
    for done, conversation in enumerate(sorted(by_conversation), 1):
        pcm = read_audio(paths[conversation], sample_rate=SAMPLE_RATE, channels=2)
        for segment in by_conversation[conversation]:
            name = f"{conversation}/{segment.x_channel}/{segment.axis}/{segment.start_s:.2f}"
            record = cut_record(
                name,
                segment,
                pcm,
                max_context_s=config.max_context_s,
                with_agent=config.store_agent,
            )
            entries.append(writer.add(record, splits[conversation]))
        tell("writing", done, len(by_conversation))
    writer.close()
    write_manifest(folder, entries)
    return entries


def _summary(survey: _Survey, entries: Sequence[ManifestEntry]) -> dict[str, Any]:
    counts: dict[str, dict[str, int]] = {}
    seconds: dict[str, float] = {}
    for entry in entries:
        axis = counts.setdefault(entry.segment.axis, {"train": 0, "val": 0})
        axis[entry.split] += 1
        seconds[entry.segment.axis] = seconds.get(entry.segment.axis, 0) + entry.segment.duration_s
    found = Counter(segment.axis for own in survey.segments.values() for segment in own)
    return {
        "schema": SCHEMA,
        "segments": counts,
        "segment_hours": {axis: round(total / 3600, 4) for axis, total in seconds.items()},
        "found": dict(found),
        "rejects": dict(sorted(survey.rejects.items())),
        "recordings": len(survey.segments),
        "recording_hours": round(survey.seconds / 3600, 4),
        "bad_files": survey.bad_files,
    }


def _nothing(source: Path, survey: _Survey) -> str:
    reasons = [f"{count} x {reason}" for reason, count in survey.rejects.most_common()]
    if survey.bad_files:
        first = survey.bad_files[0]
        reasons.append(f"{len(survey.bad_files)} unreadable (first {first['reason']})")
    return (
        f"{source}: got no segment from {len(survey.segments)} readable recording(s)"
        f" ({', '.join(reasons) or 'no speech'}), expected at least one; lower the thresholds or"
        " give longer two-channel conversations"
    )
