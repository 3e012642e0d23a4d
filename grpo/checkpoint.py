"""Checkpoints of a run: train state, position in the data, progress. Only this file knows orbax.

A checkpoint is written under a temporary name and renamed when it is complete. It holds a
fingerprint of the train state, so one that was damaged later is noticed and the one before taken.
"""

import logging
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# orbax 0.12 ships its v1 API under `experimental`.
from orbax.checkpoint.experimental import v1 as ocp

from grpo.rounding import mix

logger = logging.getLogger("grpo")

KEEP = 2
"""Newest checkpoints that stay on disk: one to continue from, one in case."""


class CheckpointError(OSError):
    """A checkpoint could not be written; those before it are intact."""


class Restored(NamedTuple):
    """What `Checkpoints.restore` found."""

    step: int  # optimizer updates done
    state: Any  # as saved, bit for bit, on the devices of the template
    progress: dict[str, Any]  # as saved
    arrays: dict[str, np.ndarray]  # as saved


class Checkpoints:
    """The checkpoint folder of a run; entries are named by the number of updates done."""

    def __init__(self, folder: Path) -> None:
        self._checkpointer = ocp.training.Checkpointer(
            folder.absolute(),
            save_decision_policy=_always(),
            preservation_policy=ocp.training.preservation_policies.LatestN(KEEP),
        )

    @property
    def latest(self) -> int | None:
        """Updates done in the newest complete checkpoint, None if there is none."""
        newest = self._checkpointer.latest
        return None if newest is None else newest.step

    def save(
        self,
        step: int,
        state: Any,
        progress: dict[str, Any],
        arrays: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Write one checkpoint; returns when it is complete on disk.

        Args:
            step: updates done.
            state: pytree of arrays of devices.
            progress: JSON values: where the run is.
            arrays: host arrays, equal on every process: what an unfinished epoch has made.

        Raises:
            CheckpointError: it cannot be written (the disk is full, for one).
        """
        stamp = {"fingerprint": fingerprint(state), "arrays": sorted(arrays or {})}
        items = {"state": state, "progress": {**progress, **stamp}}
        if arrays:
            items["arrays"] = arrays
        try:
            self._checkpointer.save_checkpointables(step, items)
        except Exception as error:  # orbax and tensorstore have no common class for a failed write
            folder, last = self._checkpointer.directory, self.latest
            raise CheckpointError(
                f"cannot write checkpoint {folder / str(step)}: {_first_line(error)}; the last "
                f"good one is {'none' if last is None else folder / str(last)}; free space and "
                "run the same command to continue"
            ) from error

    def restore(self, template: Any) -> Restored | None:
        """The newest checkpoint that can be read; None if there is none.

        One that cannot is skipped with a warning that names it.

        Args:
            template: a train state of the same structure; its leaves' shapes, formats and devices
                are those of the result. It is not read.
        """
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
            template,
        )
        for found in sorted(self._checkpointer.checkpoints, key=lambda c: c.step, reverse=True):
            path = self._checkpointer.directory / str(found.step)
            try:
                return self._read(found.step, abstract)
            except Exception as error:  # whatever a damaged file makes a reader raise
                reason = _first_line(error)
                logger.warning("skipping checkpoint %s, which cannot be read: %s", path, reason)
        return None

    def _read(self, step: int, abstract: Any) -> Restored:
        progress = self._checkpointer.load_checkpointables(step, {"progress": None})["progress"]
        wanted = {"state": abstract, **({"arrays": None} if progress["arrays"] else {})}
        loaded = self._checkpointer.load_checkpointables(step, wanted)
        saved, found = progress.pop("fingerprint"), fingerprint(loaded["state"])
        if found != saved:
            raise ValueError(f"its train state has fingerprint {found}, expected {saved}")
        names = progress.pop("arrays")
        arrays = {name: np.asarray(loaded["arrays"][name]) for name in names}
        return Restored(step, loaded["state"], progress, arrays)

    def close(self) -> None:
        """Release the folder."""
        self._checkpointer.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def fingerprint(tree: Any) -> int:
    """A number that changes with any bit of any leaf; the same however leaves are divided."""
    return int(jax.device_get(_fingerprint(tree)))


@jax.jit
def _fingerprint(tree: Any) -> jax.Array:
    total = jnp.uint32(0)
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
        bits = jax.lax.bitcast_convert_type(leaf, width).astype(jnp.uint32)
        place = jnp.full(leaf.shape, number, jnp.uint32)
        for axis in range(leaf.ndim):
            place = mix(place ^ jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis))
        total = total + jnp.sum(mix(bits ^ place), dtype=jnp.uint32)
    return total


def _always() -> Any:
    # The loop decides when to save; orbax's own default would skip some of the calls.
    return ocp.training.save_decision_policies.FixedIntervalPolicy(1)
