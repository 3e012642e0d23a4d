"""Second pass of an extraction: the selected segments, cut out and packed, a shard at a time.

A shard is complete or not there, and what is in it depends on the plan alone: a run that was
killed writes the missing ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from grpo.corpora import Recording, TwoChannelPcm, Word
from grpo.records import SHARD_RECORDS, ManifestEntry, SegmentRecord, open_shard, to_int16
from grpo.segments import FRAME_SAMPLES, SAMPLE_RATE, Segment
from mimi_jax.audio_file import resample

_MARGIN_S = 0.2  # longer than the resampler's filter: a cut sounds as in the whole recording


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """One file to write."""

    name: str
    entries: tuple[ManifestEntry, ...]
    recordings: Mapping[str, Recording]  # by conversation
    without_transcript: frozenset[str]  # conversations whose transcript is not to be used
    store_agent: bool
    level_lufs: float | None


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What was written, and what could not be: id and reason."""

    entries: list[ManifestEntry]
    lost: list[tuple[str, str]]


def context_samples(segment: Segment, max_context_s: float) -> int:
    """How much audio before a segment is stored: whole frames, as far as the recording goes."""
    start = segment.start_frame * FRAME_SAMPLES
    return min(start, int(max_context_s * SAMPLE_RATE) // FRAME_SAMPLES * FRAME_SAMPLES)


def write_shard(folder: Path, plan: ShardPlan) -> ShardReport:
    """Cuts the segments of a shard out of their recordings and packs them.

    Raises:
        OSError: the folder cannot be written.
    """
    entries, lost = [], []
    temporary = folder / f".{plan.name}"
    writer = open_shard(temporary)
    try:
        for entry, record in _records(plan):
            if isinstance(record, str):
                lost.append((entry.id, record))
            else:
                writer.write(record.to_bytes())
                entries.append(replace(entry, row=len(entries)))
    finally:
        writer.close()
    os.replace(temporary, folder / plan.name)
    return ShardReport(entries=entries, lost=lost)


def _records(plan: ShardPlan) -> Iterator[tuple[ManifestEntry, SegmentRecord | str]]:
    """A record for each entry, or why it is lost; a recording is opened once."""
    for conversation, group in groupby(plan.entries, lambda entry: entry.segment.conversation):
        own = list(group)
        recording = plan.recordings[conversation]
        try:
            read_words = recording.transcript
            if conversation in plan.without_transcript:
                read_words = None
            words = None if read_words is None else read_words()
            with recording.open() as pcm:
                records = [_cut(entry, pcm, words, plan) for entry in own]
        except (ValueError, OSError) as error:  # it was readable when it was heard
            yield from ((entry, str(error)) for entry in own)
        else:
            yield from zip(own, records, strict=True)


def _cut(
    entry: ManifestEntry,
    pcm: TwoChannelPcm,
    words: tuple[Sequence[Word], Sequence[Word]] | None,
    plan: ShardPlan,
) -> SegmentRecord:
    segment = entry.segment
    x, y = segment.x_channel, 1 - segment.x_channel
    first = segment.start_frame * FRAME_SAMPLES - entry.n_context_samples
    count = entry.n_context_samples + segment.num_frames * FRAME_SAMPLES
    audio = read_24k(pcm, first, count)
    if plan.level_lufs is not None:
        for channel, lufs in ((x, entry.user_lufs), (y, entry.agent_lufs)):
            if lufs is not None:
                audio[channel] *= 10 ** ((plan.level_lufs - lufs) / 20)

    def said(channel: int) -> tuple[Word, ...] | None:
        if words is None:
            return None
        start_s = first / SAMPLE_RATE
        end_s = start_s + count / SAMPLE_RATE
        return tuple(w for w in words[channel] if w.end_s > start_s and w.start_s < end_s)

    return SegmentRecord(
        id=entry.id,
        segment=segment,
        user=to_int16(audio[x]),
        n_context_samples=entry.n_context_samples,
        agent=to_int16(audio[y]) if plan.store_agent else None,
        user_words=said(x),
        agent_words=said(y),
    )


def read_24k(pcm: TwoChannelPcm, start: int, count: int) -> Float32[np.ndarray, "2 N"]:
    """`count` samples at 24 kHz from sample `start` on, zeros after the end of the recording.

    Only this part of the recording is read; it sounds as if the whole had been resampled.
    """
    common = math.gcd(pcm.sample_rate, SAMPLE_RATE)
    ours, theirs = SAMPLE_RATE // common, pcm.sample_rate // common  # samples of equal time
    margin = 0 if ours == theirs else round(_MARGIN_S * SAMPLE_RATE)
    first = max(0, start - margin) // ours
    last = -(-(start + count + margin) // ours)
    native = pcm.read(first * theirs, (last - first) * theirs)
    if native.shape[1] == 0:
        raise ValueError(
            f"got no audio at {start / SAMPLE_RATE:.2f} s, expected it there: the recording changed"
        )
    audio = resample(native, pcm.sample_rate, SAMPLE_RATE)
    audio = audio[:, start - first * ours :][:, :count]
    return np.pad(audio, ((0, 0), (0, count - audio.shape[1])))


def plan_shards(
    entries: Sequence[ManifestEntry],
    recordings: Mapping[str, Recording],
    *,
    without_transcript: frozenset[str],
    store_agent: bool,
    level_lufs: float | None,
) -> list[ShardPlan]:
    """Which entry goes where: files of one axis and split, conversations in order.

    Args:
        entries: with any shard and row.
        recordings: by conversation.
        without_transcript: conversations whose transcript is not to be used.
        store_agent: also store what the real partner said.
        level_lufs: loudness the stored audio is brought to; None stores it as recorded.
    """
    kinds: dict[tuple[str, str], list[ManifestEntry]] = {}
    # In the order of time: some kinds of audio can only be read forward.
    for entry in sorted(entries, key=lambda e: (e.segment.conversation, e.segment.start_s, e.id)):
        kinds.setdefault((entry.segment.axis, entry.split), []).append(entry)
    plans = []
    for (axis, split), own in sorted(kinds.items()):
        for number, start in enumerate(range(0, len(own), SHARD_RECORDS)):
            name = f"{axis}-{split}-{number:05d}.array_record"
            part = own[start : start + SHARD_RECORDS]
            names = {entry.segment.conversation for entry in part}
            plans.append(
                ShardPlan(
                    name=name,
                    entries=tuple(replace(entry, shard=name) for entry in part),
                    recordings={key: recordings[key] for key in sorted(names)},
                    without_transcript=without_transcript & names,
                    store_agent=store_agent,
                    level_lufs=level_lufs,
                )
            )
    return plans
