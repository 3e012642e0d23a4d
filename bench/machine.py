"""Where a number was measured; a figure without this is not a figure."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax

__all__ = ["describe_machine"]

PACKAGES = ("moshi-jax", "jax", "jaxlib", "flax", "numpy")


def describe_machine(*peers: str) -> dict[str, str | int]:
    """Device, processor, load and versions, as a benchmark prints and stores them.

    Args:
        peers: further distributions whose version counts; those not installed are left out.
    """
    device = jax.devices()[0]
    versions = {name: found for name in (*PACKAGES, *peers) if (found := _version(name))}
    return {
        "device": f"{device.platform} {device.device_kind}",
        "devices": jax.device_count(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **versions,
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name where Linux tells it, its architecture elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
