"""Which part of which recording an update learns from: a function of (seed, update) alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int32

from moshi_jax.pretrain.config import PretrainConfig
from moshi_jax.pretrain.tokens import Entry, TokenFolder

__all__ = ["UNKNOWN", "eval_batches", "train_batches"]

UNKNOWN = -1


def train_batches(
    folder: TokenFolder,
    config: PretrainConfig,
    *,
    first: int = 0,
    host: int = 0,
    num_hosts: int = 1,
) -> Iterator[Int32[np.ndarray, "B K T"]]:
    """The cuts of each update from `first` on, those of this host.

    Every frame of the corpus is as likely as any other, but for `from_start` and the ends of
    recordings. A recording shorter than the cut is followed by unknown tokens, which carry no loss.

    Args:
        folder: recordings.
        config: what is drawn.
        first: update to begin with: nothing else tells where a run is in its data.
        host: number of this host.
        num_hosts: hosts that share an update.
    """
    import grain  # 1.5 s that `--help` need not pay

    lengths = np.array([entry.num_frames for entry in folder.entries], float)
    reach = np.cumsum(lengths) / lengths.sum()

    def draw(index: int, rng: np.random.Generator) -> tuple[Entry, int]:
        number = min(int(np.searchsorted(reach, rng.random(), side="right")), len(reach) - 1)
        entry = folder.entries[number]
        start = int(rng.integers(max(1, entry.num_frames - config.cut_frames + 1)))
        return entry, 0 if rng.random() < config.from_start else start

    def load(update: list[tuple[Entry, int]]) -> np.ndarray:
        return np.stack([_cut(folder, *one, config.cut_frames) for one in update[host::num_hosts]])

    dataset: Any = (
        grain.MapDataset.range(config.steps * config.batch)
        .seed(config.seed)
        .random_map(draw)
        .batch(config.batch, batch_fn=list)
        .map(load)
    )
    return iter(
        dataset[first:].to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    )


def eval_batches(
    folder: TokenFolder, config: PretrainConfig, *, host: int = 0, num_hosts: int = 1
) -> Iterator[Int32[np.ndarray, "B K T"]]:
    """Every recording once, from its start, cut after cut; the last batch is filled with nothing.

    Args: as `train_batches`.
    """
    cuts = [
        (entry, start)
        for entry in folder.entries
        for start in range(0, entry.num_frames, config.cut_frames)
    ]
    nothing = np.full((folder.format.num_streams, config.cut_frames), UNKNOWN, np.int32)
    for begin in range(0, len(cuts), config.batch):
        rows = [_cut(folder, *cut, config.cut_frames) for cut in cuts[begin : begin + config.batch]]
        rows += [nothing] * (config.batch - len(rows))
        yield np.stack(rows[host::num_hosts])


def _cut(folder: TokenFolder, entry: Entry, start: int, frames: int) -> Int32[np.ndarray, "K T"]:
    streams = folder.read(entry)[:, start : start + frames]
    missing = frames - streams.shape[1]
    return np.pad(streams, ((0, 0), (0, missing)), constant_values=UNKNOWN)
