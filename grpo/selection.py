"""Which of the segments found are kept, and which conversations are held out: seeded draws."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grpo.segments import Segment


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Caps, so that no conversation and no axis outweighs the others, and the split."""

    max_per_axis: int = 2000
    """Segments kept of an axis, drawn at random."""
    max_per_conversation: int | None = 4
    """Segments of one axis kept of one conversation, drawn at random; None keeps all."""
    val_fraction: float = 0.05
    """Part of the conversations that is set aside for validation; a single one is for training."""
    disjoint_speakers: bool = True
    """Leave out of training every conversation with a speaker of the validation conversations."""
    seed: int = 0
    """Seed of the draws and of the split."""

    def __post_init__(self) -> None:
        for name in ("max_per_axis", "max_per_conversation"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, expected at least 1")
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction: got {self.val_fraction}, expected 0 up to below 1")
        if self.seed < 0:
            raise ValueError(f"seed: got {self.seed}, expected 0 or more")


def select(
    found: Mapping[str, Sequence[Segment]], axes: Sequence[str], config: SelectionConfig
) -> list[Segment]:
    """Draws up to the caps, in two stages: within each conversation, then within each axis.

    Each draw has its own seed (from the config's, the axis and the conversation): another
    recording in the folder does not change what is drawn within this one.

    Args:
        found: segments by conversation.
        axes: which axes to draw from.
        config: caps and seed.
    """
    selected = []
    for axis in axes:
        pool: list[Segment] = []
        for conversation in sorted(found):
            own = [segment for segment in found[conversation] if segment.axis == axis]
            limit = len(own) if config.max_per_conversation is None else config.max_per_conversation
            pool += _draw(own, limit, config.seed, f"{axis}/{conversation}")
        selected += _draw(pool, config.max_per_axis, config.seed, axis)
    return selected


def split_conversations(
    speakers: Mapping[str, Sequence[str | None]], config: SelectionConfig
) -> dict[str, str]:
    """Assigns whole conversations to "train", "val" or "left out".

    All conversations of the same speakers are drawn together. A conversation that is not drawn but
    shares a speaker with one that is, is left out (unless `disjoint_speakers` is off).

    Args:
        speakers: conversation to its speakers; None where unknown.
        config: fraction and seed.

    Returns:
        Conversation to split; where there is more than one group, at least one is in "train".
    """
    groups: dict[Any, list[str]] = {}
    for name in sorted(speakers):
        known = frozenset(speaker for speaker in speakers[name] if speaker is not None)
        groups.setdefault(known if config.disjoint_speakers and known else name, []).append(name)
    wanted = min(round(config.val_fraction * len(speakers)), len(speakers) - 1)
    held_out: set[str] = set()
    order = _draw(list(groups.values()), len(groups), config.seed, "split", shuffle=True)
    for group in order[: len(groups) - 1]:
        if len(held_out) + len(group) <= wanted:
            held_out.update(group)
    heard = {speaker for name in held_out for speaker in speakers[name] if speaker is not None}

    def split(name: str) -> str:
        if name in held_out:
            return "val"
        shared = config.disjoint_speakers and not heard.isdisjoint(speakers[name])
        return "left out" if shared else "train"

    return {name: split(name) for name in speakers}


def _draw(
    items: Sequence[Any], count: int, seed: int, name: str, *, shuffle: bool = False
) -> list[Any]:
    """`count` of the items at random (all, if there are no more), in their own order."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    drawn = rng.permutation(len(items))[:count]
    return [items[i] for i in (drawn if shuffle else sorted(drawn))]
