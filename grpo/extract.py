"""From two-channel corpora to a folder of training segments.

Two passes: the first hears every recording (`grpo/survey.py`), then all segments are listed and
some selected, and the second cuts them out (`grpo/shards.py`). Both go on where a run that was
killed left off, and the result is the same, byte for byte.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from grpo.corpora import CORPORA, BadFile, Corpus, Recording
from grpo.ipus import Heard, SpeechConfig
from grpo.partial import digest, finish, partial_folder
from grpo.records import CONFIG, SCHEMA, SUMMARY, ManifestEntry, write_manifest
from grpo.segment_rules import extract_segments
from grpo.segments import AXES, SAMPLE_RATE, Segment, SegmentConfig
from grpo.selection import SelectionConfig, select, split_conversations
from grpo.shards import ShardPlan, ShardReport, context_samples, plan_shards, write_shard
from grpo.survey import Note, survey
from grpo.workers import WorkerDied, run_all
from mimi_jax.audio_file import import_audio_extra
from rewards.intervals import TOLERANCE_S, Interval

# Told about progress: what is done, how much of it, of how much.
Progress = Callable[[str, int, int], None]

_NOTES, _SHARDS = ".notes.jsonl", ".shards.jsonl"


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """What is looked for, how much of it is kept, and what is stored with it."""

    corpus: Corpus = "stereo"
    """How the source is laid out; docs/data.md describes each."""
    axes: tuple[str, ...] = AXES
    """Which rules are applied."""
    max_context_s: float = 30.0
    """Audio stored before each segment, where the recording has it."""
    store_agent: bool = False
    """Also store what the real partner said."""
    store_lufs: float | None = None
    """Loudness the stored audio is brought to, by each speaker's level in the whole recording."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    segments: SegmentConfig = field(default_factory=SegmentConfig)
    speech: SpeechConfig = field(default_factory=SpeechConfig)

    def __post_init__(self) -> None:
        if self.corpus not in CORPORA:
            raise ValueError(f"corpus: got {self.corpus!r}, expected one of {', '.join(CORPORA)}")
        if not self.axes or not set(self.axes) <= set(AXES):
            raise ValueError(f"axes: got {self.axes}, expected one or more of {', '.join(AXES)}")
        if not 0 <= self.max_context_s < float("inf"):
            raise ValueError(f"max_context_s: got {self.max_context_s}, expected 0 or more seconds")


@dataclass(kw_only=True)
class _Found:
    """What the recordings hold."""

    segments: dict[str, list[Segment]] = field(default_factory=dict)  # of every good recording
    heard: dict[str, Heard] = field(default_factory=dict)
    rejects: Counter[str] = field(default_factory=Counter)
    bad_files: list[BadFile] = field(default_factory=list)
    bad_transcripts: list[BadFile] = field(default_factory=list)


def extract(
    source: Path,
    destination: Path,
    config: ExtractConfig | None = None,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Extracts the segments of a corpus.

    `destination` is complete or not there: ArrayRecord shards per axis and split, `manifest.jsonl`
    (a line a segment), `summary.json` (the returned counts) and `config.json`. Until then the work
    lies beside it in `.<name>.partial`, and a second call with the same settings goes on with it.
    The result depends on the files and the config only, not on order, workers or kills.

    Args:
        source: what the corpus needs; for "stereo" an audio file or a folder of them.
        destination: new folder; parents are made.
        config: defaults if None.
        workers: processes that read; 0: as many as there are cores and work for.
        progress: is told about every recording heard and every shard written.

    Returns:
        Counts of segments by axis and split, of candidates turned down by reason, hours, and the
        files and transcripts that could not be used.

    Raises:
        FileNotFoundError: `source` does not exist or holds nothing of the corpus.
        ValueError: `destination` is not empty, the partial folder is of other settings, or there
            was nothing to extract (with the reasons).
        ImportError: the extra `audio` is not installed.
    """
    config = config or ExtractConfig()
    for name in ("soundfile", "soxr"):
        import_audio_extra(name)
    listing = CORPORA[config.corpus](source)
    recordings = {recording.name: recording for recording in listing.recordings}
    if len(recordings) < len(listing.recordings):
        ((name, count),) = Counter(r.name for r in listing.recordings).most_common(1)
        raise ValueError(
            f"{source}: got {count} recordings named {name!r}, expected a name for each; extract"
            " the parts of the corpus one by one"
        )
    workers = workers or min(os.cpu_count() or 1, max(1, len(recordings) // 2))
    tell = progress or (lambda what, done, total: None)
    key = {
        "schema": SCHEMA,
        "corpus": config.corpus,
        "speech": dataclasses.asdict(config.speech),
    }
    with partial_folder(destination, key) as folder:
        notes = survey(
            list(recordings.values()), config.speech, folder / _NOTES, workers=workers, tell=tell
        )
        found = _find(notes, config)
        found.bad_files += listing.bad
        selected = select(found.segments, config.axes, config.selection)
        if not selected:
            raise ValueError(_nothing(source, found))
        splits = split_conversations(
            {name: recordings[name].speakers for name in sorted(found.segments)}, config.selection
        )
        entries = [
            _entry(segment, splits, recordings, found.heard, config)
            for segment in selected
            if splits[segment.conversation] != "left out"
        ]
        plans = plan_shards(
            entries,
            recordings,
            without_transcript=frozenset(bad.name for bad in found.bad_transcripts),
            store_agent=config.store_agent,
            level_lufs=config.store_lufs,
        )
        reports = _write(folder, plans, config, workers, tell)
        written = [entry for report in reports for entry in report.entries]
        found.bad_files += [BadFile(*lost) for report in reports for lost in report.lost]
        write_manifest(folder, written)
        summary = _summary(found, splits, written)
        (folder / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        values = json.dumps(dataclasses.asdict(config), indent=1)
        (folder / CONFIG).write_text(values + "\n", encoding="utf-8")
        finish(folder, destination)
    return summary


def _find(notes: Mapping[str, Note], config: ExtractConfig) -> _Found:
    """The segments of every recording that could be heard."""
    found = _Found()
    long_axes = [axis for axis in config.axes if axis != "backchannel"]
    short_axes = [axis for axis in config.axes if axis == "backchannel"]
    for name, note in notes.items():
        if note.heard is None:
            found.bad_files.append(BadFile(name, note.error or "unknown"))
            continue
        found.heard[name], found.segments[name] = note.heard, []
        if note.transcript_error is not None:
            found.bad_transcripts.append(BadFile(name, note.transcript_error))
        tables = ((note.heard.ipus, long_axes), (note.heard.ipus_backchannel, short_axes))
        for ipus, axes in tables:
            segments, rejects = extract_segments(
                ipus, conversation=name, config=config.segments, axes=axes
            )
            found.rejects += rejects
            found.segments[name] += [_with_ipus(segment, ipus, config) for segment in segments]
    return found


def _with_ipus(
    segment: Segment, ipus: tuple[Sequence[Interval], ...], config: ExtractConfig
) -> Segment:
    """With the speech that touches the window or the context that is stored."""
    start_s = segment.start_s - context_samples(segment, config.max_context_s) / SAMPLE_RATE

    def near(channel: int) -> tuple[Interval, ...]:
        return tuple(
            (start, end)
            for start, end in ipus[channel]
            if end > start_s + TOLERANCE_S and start < segment.end_s - TOLERANCE_S
        )

    return dataclasses.replace(
        segment, user_ipus=near(segment.x_channel), agent_ipus=near(1 - segment.x_channel)
    )


def _entry(
    segment: Segment,
    splits: Mapping[str, str],
    recordings: Mapping[str, Recording],
    heard: Mapping[str, Heard],
    config: ExtractConfig,
) -> ManifestEntry:
    name, x, y = segment.conversation, segment.x_channel, 1 - segment.x_channel
    return ManifestEntry(
        id=f"{name}/{x}/{segment.axis}/{segment.start_s:.2f}",
        split=splits[name],
        segment=segment,
        n_context_samples=context_samples(segment, config.max_context_s),
        shard="",
        row=0,
        corpus=config.corpus,
        user_speaker=recordings[name].speakers[x],
        agent_speaker=recordings[name].speakers[y],
        user_lufs=round(heard[name].lufs[x], 2),
        agent_lufs=round(heard[name].lufs[y], 2),
    )


def _write(
    folder: Path, plans: Sequence[ShardPlan], config: ExtractConfig, workers: int, tell: Progress
) -> list[ShardReport]:
    """Writes the shards that are not there yet; reports on all, in the order of the plans."""
    key = digest(
        [dataclasses.asdict(config), [entry.to_dict() for p in plans for entry in p.entries]]
    )
    log, reports = folder / _SHARDS, dict[str, ShardReport]()
    text = log.read_text(encoding="utf-8") if log.is_file() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():
        values = json.loads(line)
        if values["key"] == key and (folder / values["shard"]).is_file():
            reports[values["shard"]] = ShardReport(
                entries=[ManifestEntry.from_dict(entry) for entry in values["entries"]],
                lost=[(name, reason) for name, reason in values["lost"]],
            )
    for stale in folder.glob("*.array_record"):
        if stale.name not in reports:
            stale.unlink()
    missing = [plan for plan in plans if plan.name not in reports]
    with open(log, "a" if reports else "w", encoding="utf-8") as file:
        for plan, report in run_all(partial(write_shard, folder), missing, workers=workers):
            if isinstance(report, WorkerDied):
                raise ValueError(f"{plan.name}: {report}; start again to go on, with --workers 1")
            entries = [entry.to_dict() for entry in report.entries]
            line = {"key": key, "shard": plan.name, "entries": entries, "lost": report.lost}
            file.write(json.dumps(line) + "\n")
            file.flush()
            reports[plan.name] = report
            tell("writing", len(reports), len(plans))
    return [reports[plan.name] for plan in plans]


def _summary(
    found: _Found, splits: Mapping[str, str], entries: Sequence[ManifestEntry]
) -> dict[str, Any]:
    counts: dict[str, dict[str, int]] = {}
    seconds: dict[str, float] = {}
    for entry in entries:
        axis = counts.setdefault(entry.segment.axis, {"train": 0, "val": 0})
        axis[entry.split] += 1
        seconds[entry.segment.axis] = seconds.get(entry.segment.axis, 0) + entry.segment.duration_s
    candidates = Counter(segment.axis for own in found.segments.values() for segment in own)
    shifts = [h.clock_shift_s for h in found.heard.values() if h.clock_shift_s is not None]
    return {
        "schema": SCHEMA,
        "segments": counts,
        "segment_hours": {axis: round(total / 3600, 4) for axis, total in seconds.items()},
        "found": dict(candidates),
        "rejects": dict(sorted(found.rejects.items())),
        "recordings": len(found.segments),
        "recording_hours": round(sum(h.duration_s for h in found.heard.values()) / 3600, 4),
        "left_out": sum(split == "left out" for split in splits.values()),
        "clocks_compared": len(shifts),
        "bad_files": [{"file": bad.name, "reason": bad.reason} for bad in found.bad_files],
        "bad_transcripts": [
            {"file": bad.name, "reason": bad.reason} for bad in found.bad_transcripts
        ],
    }


def _nothing(source: Path, found: _Found) -> str:
    reasons = [f"{count} x {reason}" for reason, count in found.rejects.most_common()]
    if found.bad_files:
        first = found.bad_files[0]
        reasons.append(f"{len(found.bad_files)} unusable (first {first.name}: {first.reason})")
    return (
        f"{source}: got no segment from {len(found.segments)} readable recording(s)"
        f" ({', '.join(reasons) or 'no speech'}), expected at least one; lower the thresholds or"
        " give longer two-channel conversations"
    )
