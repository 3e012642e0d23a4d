"""Checkpoints of a run: train state, position in the data, config. Only this file knows orbax.

A checkpoint is written under a temporary name and renamed when it is complete, so a run that dies
while saving continues from the checkpoint before.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax

# orbax 0.12 ships its v1 API under `experimental`.
from orbax.checkpoint.experimental import v1 as ocp

KEEP = 2
"""Newest checkpoints that stay on disk: one to continue from, one in case."""


class Restored(NamedTuple):
    """What `Checkpoints.restore` found."""

    epoch: int  # epochs finished
    state: Any  # as saved, bit for bit, on the devices of the template
    data: dict[str, Any]  # state of the data iterator


class Checkpoints:
    """The checkpoint folder of a run; entries are named by the number of finished epochs."""

    def __init__(self, folder: Path) -> None:
        self._checkpointer = ocp.training.Checkpointer(
            folder.absolute(),
            save_decision_policy=_always(),
            preservation_policy=ocp.training.preservation_policies.LatestN(KEEP),
        )

    @property
    def latest(self) -> int | None:
        """Epochs finished in the newest complete checkpoint, None if there is none."""
        newest = self._checkpointer.latest
        return None if newest is None else newest.step

    def save(self, epoch: int, state: Any, data: dict[str, Any], config_json: str) -> None:
        """Write one checkpoint; returns when it is complete on disk.

        Args:
            epoch: epochs finished.
            state: pytree of arrays.
            data: state of the data iterator, JSON values.
            config_json: the resolved configuration, for the reader of the folder.
        """
        self._checkpointer.save_checkpointables(
            epoch,
            {"state": state, "data": data},
            custom_metadata={"config": config_json},
        )

    def restore(self, template: Any) -> Restored:
        """The newest checkpoint.

        Args:
            template: a train state of the same structure; its leaves' shapes, formats and devices
                are those of the result. It is not read.

        Raises:
            FileNotFoundError: there is no checkpoint.
        """
        epoch = self.latest
        if epoch is None:
            folder = self._checkpointer.directory
            raise FileNotFoundError(f"{folder} holds no checkpoint; start the run without it")
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
            template,
        )
        found = self._checkpointer.load_checkpointables(epoch, {"state": abstract, "data": None})
        return Restored(epoch, found["state"], found["data"])

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


def _always() -> Any:
    # The loop decides when to save; orbax's own default would skip some of the calls.
    return ocp.training.save_decision_policies.FixedIntervalPolicy(1)
