"""How a per-device program runs on several devices. Nothing else in the package knows.

Programs are written for one device, with the named axes `Mesh.axes` for collectives. `Mesh.map`
runs them on all devices by one of two mappings:

* `pmap`: each device holds a whole replica of the state. What is equal everywhere has no leading
  device axis (`in_axes=None`, `out_axes=None`): nothing to replicate or index, and it is donated.
* `shard_map` over `data` × `model` (× `minor` on a three-dimensional torus): large leaves of the
  state are cut over all axes, as `grpo.layout` says; the batch is divided over all devices too.

Both run without JAX's check of replication: a program reduces what it returns as equal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

Mapping = Literal["pmap", "shard_map"]
AXES = ("data", "model", "minor")
"""Names of the mesh axes in `jax.lax.psum` and friends, the first as many as the mesh has."""


@dataclass(frozen=True)
class Mesh:
    """The devices of a run.

    Attributes:
        devices: all of them, in mesh order.
        shape: how many along each axis; one axis for `pmap`.
        mapping: see the module.
    """

    devices: tuple[jax.Device, ...]
    shape: tuple[int, ...]
    mapping: Mapping = "pmap"

    @property
    def size(self) -> int:
        """Number of devices, of all processes."""
        return len(self.devices)

    @property
    def local_size(self) -> int:
        """Devices of this process."""
        return sum(device.process_index == jax.process_index() for device in self.devices)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes."""
        return AXES[: len(self.shape)]

    @property
    def jax_mesh(self) -> jax.sharding.Mesh:
        """The same for `NamedSharding`."""
        return jax.sharding.Mesh(np.array(self.devices).reshape(self.shape), self.axes)

    def sharding(self, spec: PartitionSpec = PartitionSpec()) -> NamedSharding:  # noqa: B008
        """A placement on these devices; everywhere by default."""
        return NamedSharding(self.jax_mesh, spec)

    def map(
        self,
        program: Callable[..., Any],
        *,
        in_axes: tuple[Any, ...],
        out_axes: Any,
        donate: tuple[int, ...] = (),
    ) -> Callable[..., Any]:
        """Compile a per-device program for all devices.

        Args:
            program: pure function of positional pytrees.
            in_axes: per argument, 0 = device d gets row d of the leading axis (as long as there are
                devices of this process), None = the same on each, or a tree of `PartitionSpec`:
                cut leaves, which `pmap` takes whole.
            out_axes: the same for the result, or a tuple with one for each of several results.
                None = the program has reduced it over the axes.
            donate: arguments whose buffers the result may reuse.
        """
        if self.mapping == "pmap" and not any(map(_is_row, in_axes)):
            # Every replica would do the same: nothing to map over.
            return jax.jit(program, out_shardings=self.sharding(), donate_argnums=donate)
        if self.mapping == "pmap":
            return jax.pmap(
                program,
                axis_name=self.axes[0],
                in_axes=tuple(0 if _is_row(axis) else None for axis in in_axes),
                out_axes=_per_result(out_axes, lambda axis: 0 if _is_row(axis) else None),
                donate_argnums=donate,
                devices=self.devices,
            )

        def on_one(*arguments: Any) -> Any:
            inside = [
                jax.tree.map(lambda leaf: leaf[0], value) if _is_row(axis) else value
                for axis, value in zip(in_axes, arguments, strict=True)
            ]
            results = program(*inside)
            if not isinstance(out_axes, tuple):
                return _row(results) if _is_row(out_axes) else results
            return tuple(
                _row(value) if _is_row(axis) else value
                for axis, value in zip(out_axes, results, strict=True)
            )

        mapped = jax.jit(
            jax.shard_map(
                on_one,
                mesh=self.jax_mesh,
                in_specs=tuple(map(self._spec, in_axes)),
                out_specs=_per_result(out_axes, self._spec),
                check_vma=False,
            ),
            donate_argnums=donate,
        )
        if jax.process_count() == 1:
            return mapped
        rows = self.sharding(PartitionSpec(self.axes))

        def with_local_rows(*arguments: Any) -> Any:
            """The rows that this process has are its part of a global array."""

            def place(leaf: Any) -> jax.Array:
                if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
                    return leaf  # a result of another program, global already
                return jax.make_array_from_process_local_data(rows, np.asarray(leaf))

            return mapped(
                *(
                    jax.tree.map(place, value) if _is_row(axis) else value
                    for axis, value in zip(in_axes, arguments, strict=True)
                )
            )

        return with_local_rows

    def _spec(self, axis: Any) -> Any:
        if _is_row(axis):
            return PartitionSpec(self.axes)
        return PartitionSpec() if axis is None else axis

    def fetch(self, tree: Any) -> Any:
        """Results as numpy: rows of this process's devices, or what is equal on all of them."""

        def leaf(value: Any) -> np.ndarray:
            if not isinstance(value, jax.Array) or value.is_fully_addressable:
                return np.asarray(value)
            if value.is_fully_replicated:
                return np.asarray(value.addressable_data(0))
            shards = sorted(value.addressable_shards, key=lambda shard: shard.index[0].start or 0)
            return np.concatenate([np.asarray(shard.data) for shard in shards])

        return jax.tree.map(leaf, tree)

    def whole(self, tree: Any) -> Any:
        """A tree as numpy with every leaf complete, also those that lie in blocks."""

        def leaf(value: Any) -> np.ndarray:
            if not isinstance(value, jax.Array) or value.is_fully_addressable:
                return np.asarray(value)
            if value.is_fully_replicated:
                return np.asarray(value.addressable_data(0))
            return multihost_utils.process_allgather(value, tiled=True)

        return jax.tree.map(leaf, tree)

    def put(self, tree: Any, specs: Any = None) -> Any:
        """Put a tree on the devices: whole on each, or cut by a tree of `PartitionSpec`.

        The buffer of a leaf that is on one of the devices already is shared, not copied: do not
        donate the result.
        """
        if specs is None or self.mapping == "pmap":
            return jax.device_put(tree, self.sharding())
        return jax.device_put(tree, self._shardings(specs))

    def jit(self, function: Callable[..., Any], out: Any = None) -> Callable[..., Any]:
        """Compile a function of trees on the devices.

        Args:
            function: in the global view, without collectives.
            out: where its results are to be: None everywhere, or a tree of `PartitionSpec`.
        """
        everywhere = out is None or self.mapping == "pmap"
        shardings = self.sharding() if everywhere else self._shardings(out)
        return jax.jit(function, out_shardings=shardings)

    def _shardings(self, specs: Any) -> Any:
        return jax.tree.map(self.sharding, specs, is_leaf=lambda x: isinstance(x, PartitionSpec))


def _is_row(axis: Any) -> bool:
    return isinstance(axis, int)


def _row(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[None], tree)


def _per_result(axes: Any, translate: Callable[[Any], Any]) -> Any:
    return tuple(map(translate, axes)) if isinstance(axes, tuple) else translate(axes)


def make_mesh(
    devices: int | None = None,
    *,
    mapping: Mapping = "pmap",
    shape: tuple[int, ...] | None = None,
) -> Mesh:
    """The first `devices` devices of the default backend; all of them if None.

    Args:
        devices: how many.
        mapping: replicas or shards.
        shape: of the mesh for `shard_map`, best that of the torus; all devices on the first axis
            if None.

    Raises:
        ValueError: more devices are asked for than are present, or the shape does not hold them.
    """
    present = jax.devices()
    wanted = len(present) if devices is None else devices
    if not 1 <= wanted <= len(present):
        raise ValueError(
            f"{wanted} devices wanted, {len(present)} {present[0].platform} devices present; "
            "lower --devices or, on CPU, set JAX_NUM_CPU_DEVICES"
        )
    return mesh_of(present[:wanted], mapping=mapping, shape=shape)


def mesh_of(
    devices: list[jax.Device], *, mapping: Mapping = "pmap", shape: tuple[int, ...] | None = None
) -> Mesh:
    """A mesh of given devices, also of a topology that is only described.

    Raises:
        ValueError: the shape does not hold the devices, or belongs to `pmap`.
    """
    wanted = (len(devices),) if shape is None else shape
    if mapping == "pmap" and shape is not None:
        raise ValueError(
            f"mesh shape {shape} with pmap, expected none: pmap has one axis; use shard_map"
        )
    if int(np.prod(wanted)) != len(devices) or not 1 <= len(wanted) <= len(AXES):
        raise ValueError(
            f"mesh shape {wanted} for {len(devices)} devices, expected one to {len(AXES)} axes "
            f"whose product is {len(devices)}; change --mesh-shape or --devices"
        )
    if mapping == "shard_map" and devices[0].platform == "tpu":
        devices = list(mesh_utils.create_device_mesh(wanted, devices).flat)
    return Mesh(tuple(devices), wanted, mapping)
