"""`moshi-jax segments`: cut two-channel recordings into training segments, and look at them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import Progress as Bars
from tyro.conf import Positional, arg, subcommand

from grpo.extract import ExtractConfig, Progress, extract
from grpo.records import ManifestEntry, read_manifest, record_reader
from grpo.segments import AXES
from grpo.timeline import Timeline, save_png
from layers_jax.command import run_command
from rewards import read_dialogues

_MOST_BAD = 10  # lines on bad files that are printed


@dataclass(frozen=True, kw_only=True)
class Extract:
    """Find the segments of two-channel recordings and store them for `moshi-jax train`.

    Needs one speaker on each channel. Both speakers play the user in turn. A run that was stopped
    goes on when it is started again.
    """

    source: Annotated[Positional[Path], arg(metavar="SRC")]
    """A recording, or a folder of them (searched with its subfolders), or a corpus."""
    destination: Annotated[Positional[Path], arg(metavar="DST")]
    """New folder: ArrayRecord shards, manifest.jsonl, summary.json, config.json."""
    workers: int = 0
    """Processes that read; 0: as many as there are cores and work for."""
    config: Annotated[ExtractConfig, arg(name="")] = field(default_factory=ExtractConfig)

    def run(self) -> int:
        """Extracts and prints the summary."""
        with _progress() as progress:
            summary = extract(
                self.source,
                self.destination,
                self.config,
                workers=self.workers,
                progress=progress,
            )
        print(summary_text(summary))
        print(f"wrote {self.destination}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Print the segments of a folder, one a line, or draw them."""

    folder: Annotated[Positional[Path], arg(metavar="DST")]
    """Written by `moshi-jax segments extract`."""
    axis: str | None = None
    """Only this axis."""
    segment: str | None = None
    """Only the segment of this id, or those whose id starts with it."""
    format: Literal["table", "jsonl"] = "table"
    """What is printed; times are seconds of the recording."""
    png: Path | None = None
    """Draw instead: a timeline of both speakers for each segment (extra `plot`)."""
    limit: int = 12
    """Segments drawn at most."""
    generated: Path | None = None
    """What a model said, drawn and scored: a file as `moshi-jax score` reads it, named by segment
    id."""

    def run(self) -> int:
        """Prints or draws the segments, sorted by where they lie in the recordings."""
        if self.axis is not None and self.axis not in AXES:
            raise ValueError(f"axis: got {self.axis!r}, expected one of {', '.join(AXES)}")
        if self.limit < 1:
            raise ValueError(f"limit: got {self.limit}, expected at least 1")
        entries = [
            entry
            for entry in read_manifest(self.folder)
            if self.axis in (None, entry.segment.axis) and entry.id.startswith(self.segment or "")
        ]
        entries.sort(key=lambda e: (e.segment.conversation, e.segment.start_s, e.id))
        if self.png is not None:
            self._draw(self.png, entries)
        elif self.format == "jsonl":
            for entry in entries:
                print(json.dumps(entry.to_dict(), ensure_ascii=False))
        else:
            print(table(entries))
        return 0

    def _draw(self, png: Path, entries: list[ManifestEntry]) -> None:
        said = {} if self.generated is None else read_dialogues(self.generated)
        if self.generated is not None:
            entries = [entry for entry in entries if entry.id in said]
            if not entries:
                raise ValueError(
                    f"{self.generated}: got no name of a segment in {self.folder}, expected ids as"
                    " `--format jsonl` prints them"
                )
        read, drawn = record_reader(self.folder), entries[: self.limit]
        save_png(png, [Timeline.of_segment(e, read(e), said.get(e.id)) for e in drawn])
        print(f"drew {len(drawn)} of {len(entries)} segment(s) to {png}")


Command = Annotated[Extract, subcommand("extract")] | Annotated[Inspect, subcommand("inspect")]


def table(entries: Sequence[ManifestEntry]) -> str:
    """One aligned line a segment, then the totals of the axes."""
    header = ("axis", "split", "conversation", "user", "start", "end", "length", "labels")
    rows: list[tuple[str, ...]] = [header]
    lengths: dict[str, list[float]] = {}
    for entry in entries:
        segment = entry.segment
        times = (f"{s:.2f}" for s in (segment.start_s, segment.end_s, segment.duration_s))
        rows.append(
            (
                segment.axis,
                entry.split,
                segment.conversation,
                str(segment.x_channel),
                *times,
                labels_text(segment.labels),
            )
        )
        lengths.setdefault(segment.axis, []).append(segment.duration_s)
    lines = _align(rows, right=(4, 5, 6))
    totals = [f"{axis}: {len(own)} segments, {sum(own):.1f} s" for axis, own in lengths.items()]
    return "\n".join([*lines, *totals])


def labels_text(labels: Mapping[str, Any]) -> str:
    """`pauses 1.20-1.84 3.00-3.52` or `user_turn_end_s 6.91`."""

    def text(value: Any) -> str:
        if isinstance(value, (list, tuple)):
            pair = len(value) == 2 and not isinstance(value[0], (list, tuple))
            return ("-" if pair else " ").join(text(item) for item in value)
        return f"{value:.2f}"

    return ", ".join(f"{name} {text(value)}" for name, value in labels.items())


def summary_text(summary: Mapping[str, Any]) -> str:
    """The counts of an extraction: kept by axis, turned down by reason, unreadable files."""
    rows = [("axis", "found", "train", "val", "hours")]
    for axis, found in sorted(summary["found"].items()):
        kept = summary["segments"].get(axis, {"train": 0, "val": 0})
        hours = summary["segment_hours"].get(axis, 0.0)
        rows.append((axis, str(found), str(kept["train"]), str(kept["val"]), f"{hours:.4f}"))
    lines = [
        f"{summary['recordings']} recording(s), {summary['recording_hours']} hours",
        *_align(rows, right=(1, 2, 3, 4)),
    ]
    if summary["rejects"]:
        rejected = [(str(count), reason) for reason, count in summary["rejects"].items()]
        lines += ["not taken:", *_align(rejected, right=(0,))]
    if summary["left_out"]:
        lines.append(f"{summary['left_out']} recording(s) left out: a speaker is in val")
    for what, word in (("bad_files", "skipped"), ("bad_transcripts", "without transcript")):
        bad = summary[what]
        lines += [f"{word} {item['file']}: {item['reason']}" for item in bad[:_MOST_BAD]]
        if len(bad) > _MOST_BAD:
            lines.append(f"{word}: {len(bad) - _MOST_BAD} more, all in summary.json")
    return "\n".join(lines)


def _align(rows: Sequence[Sequence[str]], *, right: Sequence[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal; elsewhere a line at every tenth part of the work."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line
        return
    with Bars(console=console) as bars:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield advance


def _line(what: str, done: int, total: int) -> None:
    if done * 10 // total > (done - 1) * 10 // total:
        unit = "recording(s)" if what == "listening" else "shard(s)"
        print(f"{what}: {done} of {total} {unit}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `extract` or `inspect`.

    Args:
        argv: `sys.argv[1:]` if None.

    Returns:
        0.

    Raises:
        ValueError, OSError: as `extract` and `read_manifest`; `run_command` makes them one line.
        SystemExit: 2 for bad usage, 0 for `--help`.
    """
    command = tyro.cli(Command, args=argv, description=__doc__)  # pyrefly: ignore
    return command.run()


if __name__ == "__main__":
    sys.exit(run_command("python -m grpo.segments_cli", main))
