"""PyTorch `moshi`, the reference: a streaming session of `MimiModel` in eager mode.

`torch.compile` (with CUDA graphs) is for GPUs there; on a CPU the package itself runs eagerly.
"""

import os
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

__all__ = ["build"]


class MoshiTorch:
    """See `bench.peers.Peer`."""

    streams = True

    def __init__(self, weights: Path, num_codebooks: int, threads: int):
        os.environ.setdefault("NO_TORCH_COMPILE", "1")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the package about itself
            import torch
            from moshi.models import loaders

            torch.set_num_threads(threads)
            self._torch = torch
            self._model = loaders.get_mimi(weights, num_codebooks=num_codebooks)
        self._streaming = False

    def reset(self) -> None:
        with self._torch.no_grad():
            if self._streaming:
                self._model.reset_streaming()
            else:
                self._model.streaming_forever(1)
        self._streaming = True

    def encode_frame(self, pcm: Float[np.ndarray, " S"]) -> Int[np.ndarray, " K"]:
        with self._torch.no_grad():
            return self._model.encode(self._torch.from_numpy(pcm)[None, None])[0, :, 0].numpy()

    def decode_frame(self, codes: Int[np.ndarray, " K"]) -> Float[np.ndarray, " S"]:
        with self._torch.no_grad():
            given = self._torch.from_numpy(np.int64(codes))[None, :, None]
            return self._model.decode(given)[0, 0].numpy()

    def encode_file(self, pcm: Float[np.ndarray, " S"]) -> Int[np.ndarray, "K T"]:
        if self._streaming:
            raise RuntimeError("a session is open, and the model streams as long as it is")
        with self._torch.no_grad():
            return self._model.encode(self._torch.from_numpy(pcm)[None, None])[0].numpy()


def build(weights: Path, num_codebooks: int, threads: int) -> MoshiTorch:
    """The reference on a CPU."""
    return MoshiTorch(weights, num_codebooks, threads)
