"""Groups for GRPO: which segments are rolled out at a step, as padded user audio.

Example:
    iterator = group_batches("segments/", DataConfig(), groups=32)
    batch = next(iterator)      # GroupBatch, endless
    state = iterator.get_state()  # {"next_group": n}: JSON, the same on any number of hosts
    iterator.set_state(state)   # the next batch is the one that came after get_state
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from grpo.perturb import Codec, PerturbConfig, perturb
from grpo.records import (
    ManifestEntry,
    SegmentRecord,
    read_manifest,
    record_reader,
    to_float32,
)
from grpo.segments import FRAME_RATE_HZ, FRAME_SAMPLES
from grpo.windows import Interval, events_of
from rewards.intervals import TOLERANCE_S

Words = tuple[tuple[str, float, float], ...]
"""Text, start and end in seconds."""


class GroupBatch(NamedTuple):
    """D groups of this host: a group is one segment, to be rolled out G times.

    The groups of a step share S on all hosts: a bucket of whole frames of 1,920 samples.
    """

    pcm: np.ndarray  # float32 [D, S]: user audio at 24 kHz, prefix + context + segment + zeros
    num_frames: np.ndarray  # int32 [D]: frames before those zeros; the rest of S is padding
    segment_start_frame: np.ndarray  # int32 [D]: frames of prefix and context; the loss starts here
    segment_duration_s: np.ndarray  # float64 [D]: seconds of the segment, a whole number of frames
    axis: list[str]  # D names: "pause", "turn", "backchannel", "interruption"
    labels: list[dict[str, Any]]  # D dicts of what `rewards.Dialogue` takes beside duration_s and
    #   agent, in seconds from the segment start: turn {"user_turn_end_s": t}, interruption
    #   {"interruption": (start, end)}, backchannel {"backchannels": ((start, end), ...)}, pause {}
    events: list[list[Interval]]  # D lists of what the labels name, in the same seconds
    index: np.ndarray  # int64 [D]: global group counter; fold it into the rollout's random key
    segment_id: list[str]  # D names, as in the manifest (for logs)
    user_words: list[Words | None]  # D transcripts of what the user says in context and segment,
    #   seconds of the rollout; None where the corpus does not tell


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is drawn from (seed, counter): an axis, one of its segments, how much context."""

    axes: tuple[str, ...] = ("pause", "turn")
    """Axes that are drawn: each once in as many groups as there are axes, in random order."""
    split: str = "train"
    """Conversations of this split."""
    prefix_silence_s: float = 3.0
    """Silence before the segment, in which Moshi ends its greeting; rounded up to frames."""
    context_probability: float = 0.0
    """How often a group starts with user audio from before the segment."""
    context_max_s: float = 30.0
    """Longest context."""
    context_ramp_steps: int = 1
    """Steps over which the limit of the context grows from 0 to the longest, linearly."""
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    """What is done to the user's audio, silence before it included."""
    bucket_frames: tuple[int, ...] = (64, 128, 192, 256, 384, 512, 640, 832)
    """Lengths that audio is padded to, increasing; each one that occurs is compiled once."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        if not self.axes or len(set(self.axes)) < len(self.axes):
            raise ValueError(f"axes: got {self.axes}, expected one or more different ones")
        if not 0 <= self.prefix_silence_s < float("inf"):
            raise ValueError(
                f"prefix_silence_s: got {self.prefix_silence_s}, expected 0 or more seconds"
            )
        if not 0 <= self.context_probability <= 1:
            raise ValueError(
                f"context_probability: got {self.context_probability}, expected 0 to 1"
            )
        if not 0 <= self.context_max_s < float("inf") or self.context_ramp_steps < 1:
            raise ValueError(
                f"context: got at most {self.context_max_s} s over {self.context_ramp_steps} steps,"
                " expected 0 or more seconds and at least one step"
            )
        lengths = list(self.bucket_frames)
        if not lengths or lengths != sorted({n for n in lengths if n > 0}):
            raise ValueError(
                f"bucket_frames: got {self.bucket_frames}, expected increasing positive numbers"
            )

    @property
    def prefix_frames(self) -> int:
        """Frames of the silence."""
        return math.ceil((self.prefix_silence_s - TOLERANCE_S) * FRAME_RATE_HZ)

    def context_limit_s(self, step: int) -> float:
        """The longest context at a step; with one step to grow over, all of it from the start."""
        if self.context_ramp_steps == 1:
            return self.context_max_s
        return self.context_max_s * min(1.0, step / (self.context_ramp_steps - 1))


class _Draw(NamedTuple):
    index: int
    entry: ManifestEntry
    context_frames: int

    @property
    def num_frames(self) -> int:
        """Frames of context and segment."""
        return self.context_frames + self.entry.segment.num_frames


class GroupIterator(Iterator[GroupBatch]):
    """Endless batches; the state counts groups over all hosts, so any host count can resume it."""

    def __init__(self, iterator: Any, groups_per_step: int) -> None:
        self._iterator = iterator
        self._groups_per_step = groups_per_step

    def __next__(self) -> GroupBatch:
        return next(self._iterator)

    def get_state(self) -> dict[str, int]:
        """The number of the next group, as JSON."""
        return {"next_group": self._iterator.get_state()["next_index"] * self._groups_per_step}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues at a state of `get_state`.

        Raises:
            ValueError: the state lies inside a step of this iterator (it was saved between steps
                of another number of groups).
        """
        step, inside = divmod(state["next_group"], self._groups_per_step)
        if inside:
            raise ValueError(
                f"next_group: got {state['next_group']}, expected a multiple of the"
                f" {self._groups_per_step} groups of a step; resume with a number of groups that"
                " divides it"
            )
        self._iterator.set_state({**self._iterator.get_state(), "next_index": step})


def group_batches(
    folder: Path | str,
    config: DataConfig,
    *,
    groups: int,
    host: int = 0,
    num_hosts: int = 1,
    codec: Codec | None = None,
) -> GroupIterator:
    """Batches of one host: `groups` of the `groups * num_hosts` groups of every step.

    Group n of the run is a function of (seed, n) alone. Host h takes every group whose number is h
    modulo the host count, but knows the lengths of the others (they are in the manifest): all
    hosts pad to the same bucket without a word between them.

    Args:
        folder: written by `moshi-jax segments extract`.
        config: what is drawn and how it is padded.
        groups: D, groups of this host in a step.
        host: number of this host.
        num_hosts: hosts that share a step.
        codec: of `grpo.perturb.codec_trip`, if the perturbation "codec" is drawn.

    Raises:
        FileNotFoundError: no manifest in the folder.
        ValueError: an axis without segments, a segment longer than the last bucket, or a host
            that is not one of `num_hosts`.
    """
    import grain  # 1.5 s that `--help` need not pay

    if groups < 1 or not 0 <= host < num_hosts:
        raise ValueError(
            f"got {groups} groups on host {host} of {num_hosts}, expected at least 1 and a host"
            " from 0 up to below the host count"
        )
    if config.perturb.needs_codec() and codec is None:
        raise ValueError("codec: got none, expected one for the perturbation 'codec'; pass it")
    folder = Path(folder)
    entries = _entries_by_axis(folder, config)
    read = record_reader(folder)
    groups_per_step = groups * num_hosts

    def other_voice(rng: np.random.Generator) -> np.ndarray:
        of_axis = entries[rng.integers(len(entries))]
        return to_float32(read(of_axis[rng.integers(len(of_axis))]).user)

    def heard(pcm: np.ndarray, index: int) -> np.ndarray:
        return perturb(
            pcm,
            config.perturb,
            index=index,
            step=index // groups_per_step,
            other=other_voice,
            codec=codec,
        )[0]

    def draw(index: int, rng: np.random.Generator) -> _Draw:
        of_axis = entries[axis_of_group(config.seed, index, len(entries))]
        entry = of_axis[rng.integers(len(of_axis))]
        wanted_s = rng.uniform(0.0, config.context_limit_s(index // groups_per_step))
        if rng.random() >= config.context_probability:
            wanted_s = 0.0
        there = entry.n_context_samples // FRAME_SAMPLES
        return _Draw(index, entry, min(int(wanted_s * FRAME_RATE_HZ), there))

    def load(step: Sequence[_Draw]) -> GroupBatch:
        longest = max(draw.num_frames for draw in step)
        return _collate(step[host::num_hosts], read, heard, config, longest)

    endless = 2**40 // groups_per_step * groups_per_step
    dataset = (
        grain.MapDataset.range(endless)
        .seed(config.seed)
        .random_map(draw)
        .batch(groups_per_step, batch_fn=list)
        .map(load)
        # One step is read ahead: the audio of 32 groups is up to 200 MB.
        .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
    )
    return GroupIterator(iter(dataset), groups_per_step)


def axis_of_group(seed: int, index: int, axes: int) -> int:
    """Which axis a group has: each one once in every run of as many groups, in random order.

    Drawn one by one, an epoch of few groups would often miss an axis.
    """
    block, place = divmod(index, axes)
    return int(np.random.default_rng([seed, block]).permutation(axes)[place])


def held_out_batches(
    folder: Path | str, config: DataConfig, *, per_axis: int, groups: int
) -> Iterator[GroupBatch]:
    """Each of some segments once, longest first, all padded to one length; clean, no context.

    Args:
        folder: written by `moshi-jax segments extract`.
        config: axes, split, prefix, and the seed of the draw.
        per_axis: segments of each axis, drawn at random.
        groups: in a batch.

    Raises:
        FileNotFoundError: no manifest in the folder.
        ValueError: too few segments of an axis, one longer than the last bucket, or a number of
            segments that the batches do not divide.
    """
    folder = Path(folder)
    config = replace(config, context_probability=0.0)
    rng = np.random.default_rng(config.seed)
    chosen: list[ManifestEntry] = []
    for axis, found in zip(config.axes, _entries_by_axis(folder, config), strict=True):
        if len(found) < per_axis:
            raise ValueError(
                f"{folder}: got {len(found)} {axis!r} segments in split {config.split!r}, expected"
                f" at least {per_axis}; extract more or ask for fewer"
            )
        chosen += [found[n] for n in rng.choice(len(found), per_axis, replace=False)]
    if len(chosen) % groups:
        raise ValueError(f"got {len(chosen)} segments in all, expected a multiple of {groups}")
    chosen.sort(key=lambda entry: -entry.segment.num_frames)
    draws = [_Draw(number, entry, 0) for number, entry in enumerate(chosen)]
    read = record_reader(folder)

    for first in range(0, len(draws), groups):
        batch = draws[first : first + groups]
        yield _collate(batch, read, lambda pcm, _: pcm, config, draws[0].num_frames)


def _entries_by_axis(folder: Path, config: DataConfig) -> list[list[ManifestEntry]]:
    entries = [entry for entry in read_manifest(folder) if entry.split == config.split]
    by_axis = [[e for e in entries if e.segment.axis == axis] for axis in config.axes]
    for axis, found in zip(config.axes, by_axis, strict=True):
        if not found:
            there = sorted({entry.segment.axis for entry in entries})
            raise ValueError(
                f"{folder}: got no {axis!r} segment in split {config.split!r}, expected at least"
                f" one (there are {', '.join(there) or 'none of any axis'}); extract more or leave"
                " out the axis"
            )

    def frames(entry: ManifestEntry) -> int:
        """At most."""
        context = min(entry.n_context_samples / FRAME_SAMPLES, config.context_max_s * FRAME_RATE_HZ)
        drawn = int(context) if config.context_probability > 0 else 0
        return config.prefix_frames + drawn + entry.segment.num_frames

    longest = max((e for found in by_axis for e in found), key=frames)
    if frames(longest) > config.bucket_frames[-1]:
        raise ValueError(
            f"{folder}: got segment {longest.id} of {frames(longest)} frames with prefix and"
            f" context, expected at most {config.bucket_frames[-1]}; add a longer bucket, allow"
            " less context, or extract with a smaller max_segment_s"
        )
    return by_axis


def _collate(
    draws: Sequence[_Draw],
    read: Callable[[ManifestEntry], SegmentRecord],
    heard: Callable[[np.ndarray, int], np.ndarray],
    config: DataConfig,
    longest_frames: int,
) -> GroupBatch:
    prefix = config.prefix_frames
    bucket = next(n for n in config.bucket_frames if n >= prefix + longest_frames)
    pcm = np.zeros((len(draws), bucket * FRAME_SAMPLES), np.float32)
    user_words: list[Words | None] = []
    for row, draw in zip(pcm, draws, strict=True):
        record = read(draw.entry)
        first = record.n_context_samples - draw.context_frames * FRAME_SAMPLES
        audio = to_float32(record.user[first:])
        start = prefix * FRAME_SAMPLES
        end = start + len(audio)
        row[start:end] = audio
        row[:end] = heard(row[:end], draw.index)
        user_words.append(_words_heard(record, prefix, draw.context_frames))
    segments = [draw.entry.segment for draw in draws]
    labels = [s.relative_labels() for s in segments]
    return GroupBatch(
        pcm=pcm,
        num_frames=np.array([prefix + draw.num_frames for draw in draws], np.int32),
        segment_start_frame=np.array([prefix + draw.context_frames for draw in draws], np.int32),
        segment_duration_s=np.array([s.num_frames / FRAME_RATE_HZ for s in segments]),
        axis=[s.axis for s in segments],
        labels=[_dialogue_labels(own) for own in labels],
        events=[events_of(own) for own in labels],
        index=np.array([draw.index for draw in draws], np.int64),
        segment_id=[draw.entry.id for draw in draws],
        user_words=user_words,
    )


def _words_heard(record: SegmentRecord, prefix: int, context_frames: int) -> Words | None:
    """What the user says in a rollout, on its clock; a word cut by its begin is left out."""
    if record.user_words is None:
        return None
    first_s = record.segment.start_s - context_frames / FRAME_RATE_HZ
    shift_s = prefix / FRAME_RATE_HZ - first_s
    return tuple(
        (word.text, word.start_s + shift_s, word.end_s + shift_s)
        for word in record.user_words
        if word.start_s >= first_s - TOLERANCE_S
    )


def _dialogue_labels(labels: dict[str, Any]) -> dict[str, Any]:
    # No reward asks where the user paused: the agent is to be silent all through the segment.
    return {name: value for name, value in labels.items() if name != "pauses"}
