"""Other runtimes of the same codec, given the same weights: what our figures are held against.

Each is imported when it is asked for; none is a dependency.
"""

from bench.peers.base import Peer, build_peer, missing_packages

__all__ = ["Peer", "build_peer", "missing_packages"]
