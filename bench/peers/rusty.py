"""`rustymimi`, the codec of Kyutai's Rust runtime (candle), which has the released shape only."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

__all__ = ["build"]


class Rusty:
    """See `bench.peers.Peer`."""

    streams = True

    def __init__(self, weights: Path, num_codebooks: int, threads: int):
        # Read once by the thread pool of the extension, when it first has work.
        os.environ["RAYON_NUM_THREADS"] = str(threads)
        import rustymimi

        self._tokenizer = rustymimi.Tokenizer(str(weights), num_codebooks=num_codebooks)

    def reset(self) -> None:
        self._tokenizer.reset()

    def encode_frame(self, pcm: Float[np.ndarray, " S"]) -> Int[np.ndarray, " K"]:
        return self._tokenizer.encode_step(pcm[None, None])[0, :, 0].astype(np.int32)

    def decode_frame(self, codes: Int[np.ndarray, " K"]) -> Float[np.ndarray, " S"]:
        return self._tokenizer.decode_step(codes[None, :, None].astype(np.uint32))[0, 0]

    def encode_file(self, pcm: Float[np.ndarray, " S"]) -> Int[np.ndarray, "K T"]:
        return self._tokenizer.encode(pcm[None, None])[0].astype(np.int32)


def build(weights: Path, num_codebooks: int, threads: int) -> Rusty:
    """The Rust codec on a CPU."""
    return Rusty(weights, num_codebooks, threads)
