"""How a per-device program runs on several devices. Nothing else in the package knows.

Programs are written for one device with the named axis `AXIS` for collectives; `Mesh.map` runs them
on all devices with `jax.pmap`. What is equal on all devices has no leading device axis
(`in_axes=None`, `out_axes=None`): nothing to replicate or to index, and state can be donated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

AXIS = "data"
"""Name of the axis over devices in `jax.lax.psum` and friends."""


@dataclass(frozen=True)
class Mesh:
    """The devices of a run, each holding a whole replica of the model."""

    devices: tuple[jax.Device, ...]

    @property
    def size(self) -> int:
        """Number of devices."""
        return len(self.devices)

    def map(
        self,
        program: Callable[..., Any],
        *,
        in_axes: tuple[int | None, ...],
        out_axes: int | None,
        donate: tuple[int, ...] = (),
    ) -> Callable[..., Any]:
        """Compile a per-device program for all devices.

        Args:
            program: pure function of positional pytrees.
            in_axes: per argument, 0 = device d gets row d of the leading axis (which is as long as
                there are devices), None = the same on each. At least one is 0.
            out_axes: 0 = stack the results on a leading axis, None = the result is equal on all
                devices (the program has reduced it over `AXIS`).
            donate: arguments whose buffers the result may reuse.
        """
        return jax.pmap(
            program,
            axis_name=AXIS,
            in_axes=in_axes,
            out_axes=out_axes,
            donate_argnums=donate,
            devices=self.devices,
        )

    @property
    def _replicated(self) -> NamedSharding:
        mesh = jax.sharding.Mesh(np.array(self.devices), (AXIS,))
        return NamedSharding(mesh, PartitionSpec())

    def replicate(self, tree: Any) -> Any:
        """Put every leaf on each device, as arguments with `in_axes=None` want it.

        The buffer of a leaf that is on one of the devices already is shared, not copied: do not
        donate the result.
        """
        return jax.device_put(tree, self._replicated)

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a function of replicated trees; its results are on every device."""
        return jax.jit(function, out_shardings=self._replicated)


def make_mesh(devices: int | None = None) -> Mesh:
    """The first `devices` devices of the default backend; all of them if None.

    Raises:
        ValueError: more devices are asked for than are present.
    """
    present = jax.devices()
    wanted = len(present) if devices is None else devices
    if not 1 <= wanted <= len(present):
        raise ValueError(
            f"{wanted} devices wanted, {len(present)} {present[0].platform} devices present; "
            "lower --devices or, on CPU, set JAX_NUM_CPU_DEVICES"
        )
    return Mesh(tuple(present[:wanted]))
