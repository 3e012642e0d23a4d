"""What a peer must answer, and the table of them."""

import importlib
import importlib.util
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

__all__ = ["PEERS", "Peer", "build_peer", "missing_packages"]

# name: (packages that must be importable, module with `build(weights, num_codebooks, threads)`).
PEERS = {
    "moshi": (("moshi", "torch"), "bench.peers.moshi_torch"),
    "rustymimi": (("rustymimi",), "bench.peers.rusty"),
    "transformers": (("transformers", "torch"), "bench.peers.huggingface"),
}


@runtime_checkable
class Peer(Protocol):
    """One session of batch 1 in another runtime."""

    streams: bool
    """Whether it has a frame step; without one only whole files can be timed."""

    def reset(self) -> None:
        """Starts a new session."""
        ...

    def encode_frame(self, pcm: Float[np.ndarray, " S"]) -> Int[np.ndarray, " K"]:
        """Codes of the next 80 ms."""
        ...

    def decode_frame(self, codes: Int[np.ndarray, " K"]) -> Float[np.ndarray, " S"]:
        """Audio of the next frame of codes."""
        ...

    def encode_file(self, pcm: Float[np.ndarray, " S"]) -> Int[np.ndarray, "K T"]:
        """Codes of a whole signal, outside any session, as the runtime offers it."""
        ...


def missing_packages(name: str) -> list[str]:
    """Packages of peer `name` that are not installed.

    Raises:
      ValueError: there is no such peer.
    """
    if name not in PEERS:
        raise ValueError(f"peer {name!r} is unknown, expected some of {', '.join(PEERS)}")
    return [package for package in PEERS[name][0] if importlib.util.find_spec(package) is None]


def build_peer(name: str, weights: Path, *, num_codebooks: int, threads: int) -> Peer:
    """The peer `name` with the released-layout weights of file `weights`.

    Raises:
      ImportError: its packages are not installed.
    """
    if missing := missing_packages(name):
        raise ImportError(
            f"peer {name} needs {', '.join(missing)}, which cannot be imported; install it, or "
            "leave the peer out of --against"
        )
    return importlib.import_module(PEERS[name][1]).build(weights, num_codebooks, threads)
