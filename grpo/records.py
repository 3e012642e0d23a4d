"""A training segment as bytes, and the folder they lie in: ArrayRecord shards and a manifest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from jaxtyping import Float32, Int16

from grpo.corpora import Word
from grpo.segments import FRAME_SAMPLES, SAMPLE_RATE, Segment

SCHEMA = 2
MANIFEST, SUMMARY, CONFIG = "manifest.jsonl", "summary.json", "config.json"
SHARD_RECORDS = 500  # about 1 GB


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
        user_words: what the user says in context and segment, seconds of the recording; None where
            the corpus does not tell.
        agent_words: the same of the real partner.
    """

    id: str
    segment: Segment
    user: np.ndarray
    n_context_samples: int
    agent: np.ndarray | None = None
    user_words: tuple[Word, ...] | None = None
    agent_words: tuple[Word, ...] | None = None

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
                "user_words": self.user_words,
                "agent_words": self.agent_words,
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
        segment = _segment(values)
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
            user_words=_words(values["user_words"]),
            agent_words=_words(values["agent_words"]),
        )


def _segment(values: Mapping[str, Any]) -> Segment:
    """Out of msgpack and JSON intervals come as lists."""
    fields = {field.name: values[field.name] for field in dataclasses.fields(Segment)}
    for name in ("user_ipus", "agent_ipus"):
        fields[name] = tuple((start, end) for start, end in fields[name])
    return Segment(**fields)


def _words(values: Sequence[Sequence[Any]] | None) -> tuple[Word, ...] | None:
    return None if values is None else tuple(Word(*word) for word in values)


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
    corpus: str = "stereo"
    user_speaker: str | None = None
    agent_speaker: str | None = None
    user_lufs: float | None = None  # loudness of the user's channel in the whole recording
    agent_lufs: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a line of JSON."""
        values = dataclasses.asdict(self)
        segment = values.pop("segment")
        for name in ("user_ipus", "agent_ipus"):
            segment[name] = [list(interval) for interval in segment[name]]
        return {**segment, **values}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ManifestEntry:
        """Reads `to_dict`."""
        names = [field.name for field in dataclasses.fields(Segment)]
        rest = {name: value for name, value in values.items() if name not in names}
        return cls(segment=_segment(values), **rest)


def open_shard(path: Path) -> Any:
    """An ArrayRecord file to `write` bytes to; `close` it."""
    # Imported here: no other command writes records.
    from array_record.python.array_record_module import ArrayRecordWriter

    # A record a group: training reads single records in random order.
    return ArrayRecordWriter(str(path), "group_size:1")


def record_reader(folder: Path) -> Callable[[ManifestEntry], SegmentRecord]:
    """A function that reads single records of a folder, opening each shard once."""
    from grain.sources import ArrayRecordDataSource

    sources: dict[str, Any] = {}  # by shard, opened when first read

    def read(entry: ManifestEntry) -> SegmentRecord:
        if entry.shard not in sources:
            sources[entry.shard] = ArrayRecordDataSource(str(folder / entry.shard))
        return SegmentRecord.from_bytes(sources[entry.shard][entry.row])

    return read


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
