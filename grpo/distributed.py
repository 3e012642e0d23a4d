"""Several processes, one run: the only place that starts JAX's distributed service."""

import logging
from dataclasses import dataclass

import jax

logger = logging.getLogger("grpo")


@dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """How the processes of a run find each other; with the defaults there is one."""

    auto: bool = False
    """Ask the cluster (Cloud TPU, GKE, Slurm, Open MPI): start the same command on every host."""
    coordinator: str | None = None
    """host:port of process 0, where no cluster can be asked; the next two go with it."""
    num_processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this is, from 0."""

    def __post_init__(self) -> None:
        by_hand = (self.coordinator, self.num_processes, self.process_id)
        given = [value is not None for value in by_hand]
        if any(given) and not all(given):
            raise ValueError(
                f"distributed: got coordinator {self.coordinator}, num_processes "
                f"{self.num_processes}, process_id {self.process_id}; expected all three or none"
            )
        if self.auto and any(given):
            raise ValueError("distributed: got auto and a coordinator, expected one of the two")
        if all(given) and not 0 <= (self.process_id or 0) < (self.num_processes or 0):
            raise ValueError(
                f"distributed: got process_id {self.process_id} of {self.num_processes}, expected "
                "one from 0 up to below that number"
            )


def initialize_distributed(config: DistributedConfig) -> None:
    """Join the other processes; call it before anything else asks JAX for devices.

    A second call does nothing.

    Raises:
        ValueError: the others cannot be found.
    """
    if not (config.auto or config.coordinator) or jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(
            coordinator_address=config.coordinator,
            num_processes=config.num_processes,
            process_id=config.process_id,
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"cannot join the other processes of the run: {error}") from error
    logger.info(
        "process %d of %d, %d of %d devices here",
        jax.process_index(),
        jax.process_count(),
        jax.local_device_count(),
        jax.device_count(),
    )
