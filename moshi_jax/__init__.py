"""The front door: load a checkpoint, talk to it, or run the `moshi-jax` command.

The names below are imported on first use: `import moshi_jax` costs no JAX import.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convert import load_voice
    from helium_jax import DuplexSession
    from moshi_jax.loading import load

__all__ = ["DuplexSession", "__version__", "load", "load_voice"]

__version__ = "0.1.0"

_HOMES = {
    "DuplexSession": "helium_jax",
    "load": "moshi_jax.loading",
    "load_voice": "convert",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'moshi_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
