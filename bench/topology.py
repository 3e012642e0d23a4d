"""Accelerators that are not here, described by name so that programs can be compiled for them.

Figures of a device are the vendors' datasheets, except `memory`: what the compiler lets a program
use, as it says itself when one does not fit.
"""

import difflib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh

__all__ = ["DEVICES", "NAMES", "Device", "Topology", "describe", "only_figures"]

GIB = 2**30
GB = 10**9
TFLOPS = 10**12


@dataclass(frozen=True)
class Device:
    """What one JAX device can do; some chips are two devices.

    Attributes:
      memory: bytes that a program may use.
      bandwidth: HBM bytes a second.
      bf16: floating-point operations a second on the matrix units.
      link: bytes a second that leave the device over all its links to others, one way.
    """

    memory: int
    bandwidth: float
    bf16: float
    link: float


# Sources: Google Cloud's pages of each TPU version, NVIDIA's H100 SXM datasheet.
DEVICES = {
    "v4": Device(int(15.25 * GIB), 614 * GB, 137.5 * TFLOPS, 150 * GB),
    "v5e": Device(int(15.75 * GIB), 819 * GB, 197 * TFLOPS, 200 * GB),
    "v5p": Device(int(95.74 * GIB), 2765 * GB, 459 * TFLOPS, 600 * GB),
    "v6e": Device(int(31.25 * GIB), 1640 * GB, 918 * TFLOPS, 400 * GB),
    "tpu7x": Device(int(94.75 * GIB), 3690 * GB, 1153.5 * TFLOPS, 600 * GB),
    "h100": Device(int(79.1 * GIB), 3350 * GB, 989 * TFLOPS, 450 * GB),
}
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SHAPES = {
    "v4": ("2x2x1", "2x2x4", "4x4x4"),
    "v5e": _FLAT,
    "v5p": ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8"),
    "v6e": _FLAT,
    "tpu7x": ("1x1x1", "2x2x1", "2x2x4"),
    "h100": ("1", "2", "4", "8"),
}
NAMES = tuple(f"{kind}:{shape}" for kind, shapes in _SHAPES.items() for shape in shapes)

# libtpu looks for the machine it runs on, which this is not; it takes one process a machine, but a
# description occupies no device. One accelerator type serves for describing all.
_LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_PIP = {
    "tpu": ("libtpu", "pip install 'moshi-jax[tpu]'"),
    "cuda": ("jax_plugins.xla_cuda12", "pip install 'moshi-jax[cuda-aot]'"),
}
# An H100 SXM as XLA sees it (stream_executor's device description, a text proto).
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: 2048
  shared_memory_per_block: 49152  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000  l2_cache_size: 52428800  device_memory_size: 84978434048
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclass(frozen=True)
class Topology:
    """Devices to compile for, without having them."""

    name: str
    platform: str  # "tpu" or "cuda"; "figures" for devices nothing is compiled for
    device: Device
    devices: Sequence[Any]  # JAX device descriptions

    def mesh(self, **axes: int) -> Mesh:
        """The first devices as a mesh of the given axes.

        Raises:
          ValueError: the axes need more devices than there are.
        """
        needed = math.prod(axes.values())
        if needed > len(self.devices):
            raise ValueError(
                f"a mesh of {axes} needs {needed} devices, {self.name} has {len(self.devices)}"
            )
        grid = np.array(self.devices[:needed]).reshape(tuple(axes.values()))
        return Mesh(grid, tuple(axes))

    def compile(self, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        """Compiles what was lowered for these devices; never from the persistent cache.

        An executable for absent devices cannot be read back, and trying warns.

        Raises:
          jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED when it does not fit the device's memory.
        """
        enabled = jax.config.values["jax_enable_compilation_cache"]
        # Autotuning times kernels, for which it would need the device.
        options: dict[str, str | bool] = {"xla_gpu_autotune_level": "0"}
        try:
            jax.config.update("jax_enable_compilation_cache", False)
            compilation_cache.reset_cache()  # JAX asks whether to use it only once
            return lowered.compile(compiler_options=options if self.platform == "cuda" else None)
        finally:
            jax.config.update("jax_enable_compilation_cache", enabled)
            compilation_cache.reset_cache()


def describe(name: str) -> Topology:
    """The devices called `name`: `v5e:2x4` is a slice of a TPU pod, `h100:8` a node of GPUs.

    Args:
      name: one of `NAMES`, or another slice of the same kinds that libtpu knows.

    Raises:
      ValueError: there is no such kind of device, or no such slice of it.
      ImportError: the compiler for it is not installed; the message has the pip line.
    """
    kind, _, shape = name.partition(":")
    if kind not in DEVICES or not re.fullmatch(r"\d+(x\d+)*", shape):
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
        guess = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown topology {name!r}{guess}, expected one of {', '.join(NAMES)}")
    platform = "cuda" if kind == "h100" else "tpu"
    module, pip = _PIP[platform]
    if not _installed(module):
        raise ImportError(
            f"compiling for {name} needs {module}, which is not installed; run: {pip}"
        )
    options: dict[str, Any]
    if platform == "cuda":
        options = {"target_config": _H100, "topology": f"1x1x{shape}"}
    else:
        for variable, value in _LIBTPU.items():
            os.environ.setdefault(variable, value)
        options = {"topology_name": name}
        if set(shape) <= set("1x"):  # a host has four chips unless told otherwise
            options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found = topologies.get_topology_desc(platform=platform, **options)
    except Exception as error:  # jaxlib's own classes differ by version and by what went wrong
        raise ValueError(
            f"{name} is no slice the compiler knows, expected one of {', '.join(NAMES)}: {error}"
        ) from error
    return Topology(name, platform, DEVICES[kind], found.devices)


def only_figures(name: str, devices: int) -> Topology:
    """So many of the devices called `name` (`gpu:h100`, `tpu:v6e`), of which only figures are used.

    Raises:
      ValueError: there is no such kind of device.
    """
    known = {f"{'gpu' if kind == 'h100' else 'tpu'}:{kind}": kind for kind in DEVICES}
    if name not in known or devices < 1:
        raise ValueError(
            f"got {devices} devices of kind {name!r}, expected at least 1 of {', '.join(known)}"
        )
    return Topology(f"{name} x {devices}", "figures", DEVICES[known[name]], (None,) * devices)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing too
        return False
