"""A training segment as bytes, and the folder they lie in: ArrayRecord shards and a manifest."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from jaxtyping import Float32, Int16

from grpo.segments import FRAME_SAMPLES, SAMPLE_RATE, Segment

SCHEMA = 1
MANIFEST, SUMMARY, CONFIG = "manifest.jsonl", "summary.json", "config.json"

_SHARD_RECORDS = 500  # about 1 GB


@dataclass(frozen=True, kw_only=True)
class SegmentRecord:
    """One segment with its audio at 24 kHz.

    Attributes:
        id: unique in the folder.
        segment: window and labels, in seconds of the recording.
        user: int16 [n_context_samples + segment samples], what the model hears; zeros where the
            last frame outlasts the recording.
        n_context_samples: how much of `user` lies before the segment, whole frames.
        agent: int16 of the same length, what the real partner said, if it was asked for.
    """

    id: str
    segment: Segment
    user: np.ndarray
    n_context_samples: int
    agent: np.ndarray | None = None

    def to_bytes(self) -> bytes:
        """Msgpack; the audio is little-endian int16."""
        packed = msgpack.packb(
            {
                "schema": SCHEMA,
                "id": self.id,
                **dataclasses.asdict(self.segment),
                "sample_rate": SAMPLE_RATE,
                "n_context_samples": self.n_context_samples,
                "user": self.user.astype("<i2").tobytes(),
                "agent": None if self.agent is None else self.agent.astype("<i2").tobytes(),
            }
        )
        assert packed is not None  # only a packer that collects gives None
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> SegmentRecord:
        """Reads `to_bytes`.

        Raises:
            ValueError: written by another version of this format, or not a whole segment.
        """
        values = msgpack.unpackb(data)
        if values["schema"] != SCHEMA:
            raise ValueError(
                f"segment record: got schema {values['schema']}, expected {SCHEMA}; extract the"
                " segments again with this version"
            )
        segment = Segment(**{f.name: values[f.name] for f in dataclasses.fields(Segment)})
        user = np.frombuffer(values["user"], "<i2")
        expected = values["n_context_samples"] + segment.num_frames * FRAME_SAMPLES
        if len(user) != expected:
            raise ValueError(
                f"segment {values['id']}: got {len(user)} samples of audio, expected {expected};"
                " extract the segments again"
            )
        agent = values["agent"]
        return cls(
            id=values["id"],
            segment=segment,
            user=user,
            n_context_samples=values["n_context_samples"],
            agent=None if agent is None else np.frombuffer(agent, "<i2"),
        )


def cut_record(
    id: str,
    segment: Segment,
    pcm: Float32[np.ndarray, "2 S"],
    *,
    max_context_s: float,
    with_agent: bool,
) -> SegmentRecord:
    """Cuts a segment on the frame grid, and the audio before it, out of a recording at 24 kHz."""
    start = segment.start_frame * FRAME_SAMPLES
    end = start + segment.num_frames * FRAME_SAMPLES
    context = min(start, int(max_context_s * SAMPLE_RATE) // FRAME_SAMPLES * FRAME_SAMPLES)

    def cut(channel: int) -> Int16[np.ndarray, " N"]:
        audio = to_int16(pcm[channel, start - context : end])
        return np.pad(audio, (0, context + end - start - len(audio)))

    return SegmentRecord(
        id=id,
        segment=segment,
        user=cut(segment.x_channel),
        n_context_samples=context,
        agent=cut(1 - segment.x_channel) if with_agent else None,
    )


def to_int16(pcm: Float32[np.ndarray, ...]) -> Int16[np.ndarray, ...]:
    """Full scale 1.0 to 32768 steps, as in WAV files; louder samples are clipped."""
    return np.clip(np.rint(pcm * 32768.0), -32768, 32767).astype(np.int16)


def to_float32(pcm: Int16[np.ndarray, ...]) -> Float32[np.ndarray, ...]:
    """Inverse of `to_int16`."""
    return pcm.astype(np.float32) / 32768.0


@dataclass(frozen=True, kw_only=True)
class ManifestEntry:
    """Where a segment lies: everything about it but the audio."""

    id: str
    split: str
    segment: Segment
    n_context_samples: int
    shard: str  # file name
    row: int  # position in the shard

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a line of JSON."""
        values = dataclasses.asdict(self)
        return {**values.pop("segment"), **values}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ManifestEntry:
        """Reads `to_dict`."""
        names = [field.name for field in dataclasses.fields(Segment)]
        rest = {name: value for name, value in values.items() if name not in names}
        return cls(segment=Segment(**{name: values[name] for name in names}), **rest)


class ShardWriter:
    """One growing ArrayRecord file per axis and split; a full one is followed by the next."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counts: Counter[tuple[str, str]] = Counter()
        self._open: dict[tuple[str, str], Any] = {}

    def add(self, record: SegmentRecord, split: str) -> ManifestEntry:
        """Appends a record and says where it went."""
        # Imported here: no other command writes records.
        from array_record.python.array_record_module import ArrayRecordWriter

        kind = (record.segment.axis, split)
        number, row = divmod(self._counts[kind], _SHARD_RECORDS)
        shard = f"{record.segment.axis}-{split}-{number:05d}.array_record"
        if row == 0:
            if kind in self._open:
                self._open[kind].close()
            # A record a group: training reads single records in random order.
            self._open[kind] = ArrayRecordWriter(str(self._folder / shard), "group_size:1")
        self._open[kind].write(record.to_bytes())
        self._counts[kind] += 1
        return ManifestEntry(
            id=record.id,
            split=split,
            segment=record.segment,
            n_context_samples=record.n_context_samples,
            shard=shard,
            row=row,
        )

    def close(self) -> None:
        """Finishes all files."""
        for writer in self._open.values():
            writer.close()


def write_manifest(folder: Path, entries: Iterable[ManifestEntry]) -> None:
    """One line of JSON a segment."""
    lines = (json.dumps(entry.to_dict(), ensure_ascii=False) for entry in entries)
    (folder / MANIFEST).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_manifest(folder: Path) -> list[ManifestEntry]:
    """All segments of a folder, in the order they were written.

    Raises:
        FileNotFoundError: the folder has no manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"cannot read segments: got no {path}, expected a folder written by"
            " `moshi-jax segments extract`; extract first"
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    return [ManifestEntry.from_dict(json.loads(line)) for line in lines]
