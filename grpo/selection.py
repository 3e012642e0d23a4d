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
    max_per_conversation: int = 4
    """Segments of one axis kept of one conversation, drawn at random."""
    val_fraction: float = 0.05
    """Part of the conversations that is set aside for validation; a single one is for training."""
    seed: int = 0
    """Seed of the draws and of the split."""

    def __post_init__(self) -> None:
        for name in ("max_per_axis", "max_per_conversation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
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
            pool += _draw(own, config.max_per_conversation, config.seed, f"{axis}/{conversation}")
        selected += _draw(pool, config.max_per_axis, config.seed, axis)
    return selected


def split_conversations(conversations: Sequence[str], config: SelectionConfig) -> dict[str, str]:
    """Assigns whole conversations to "train" or "val"; at least one stays in "train"."""
    count = min(round(config.val_fraction * len(conversations)), len(conversations) - 1)
    held_out = set(_draw(conversations, count, config.seed, "split"))
    return {name: "val" if name in held_out else "train" for name in conversations}


def _draw(items: Sequence[Any], count: int, seed: int, name: str) -> list[Any]:
    """`count` of the items at random (all, if there are no more), in their own order."""
    if len(items) <= count:
        return list(items)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return [items[i] for i in sorted(rng.permutation(len(items))[:count])]
