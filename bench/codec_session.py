"""Our codec as the contestants of `bench mimi` are: one call a frame, numpy in and out."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from layers_jax.functional import Params
from mimi_jax import Mimi, decode, decode_step, encode, encode_step, init_state

__all__ = ["Ours", "compile_s"]


class Ours:
    """Sessions side by side, each call one compiled program on donated state."""

    streams = True

    def __init__(self, mimi: Mimi, params: Params, *, batch: int = 1):
        self.mimi, self.params, self.batch = mimi, params, batch
        self._encode = self._step(encode_step)
        self._decode = self._step(decode_step)
        self._encode_file = jax.jit(lambda params, pcm: encode(mimi, params, pcm))
        self._encode_full = jax.jit(lambda params, pcm: encode(mimi, params, pcm, mode="full"))
        self._decode_file = jax.jit(lambda params, codes: decode(mimi, params, codes))
        self.reset()

    def _step(self, step: Callable) -> Callable:
        run = lambda params, state, x, mask: step(self.mimi, params, state, x, mask)  # noqa: E731
        return jax.jit(run, donate_argnums=1)

    def reset(self) -> None:
        """Starts new sessions."""
        self.state = init_state(self.mimi, self.batch)
        self.mask = jnp.ones(self.batch, bool)

    def encode_batch(self, pcm: Float[np.ndarray, "B S"]) -> Int[np.ndarray, "B K"]:
        """Codes of the next frame of every session."""
        self.state, codes = self._encode(self.params, self.state, pcm, self.mask)
        return np.asarray(codes)

    def decode_batch(self, codes: Int[np.ndarray, "B K"]) -> Float[np.ndarray, "B S"]:
        """Audio of the next frame of every session."""
        self.state, pcm = self._decode(self.params, self.state, codes, self.mask)
        return np.asarray(pcm)

    def encode_frame(self, pcm: Float[np.ndarray, " S"]) -> Int[np.ndarray, " K"]:
        """See `bench.peers.Peer`."""
        return self.encode_batch(pcm[None])[0]

    def decode_frame(self, codes: Int[np.ndarray, " K"]) -> Float[np.ndarray, " S"]:
        """See `bench.peers.Peer`."""
        return self.decode_batch(codes[None])[0]

    def encode_file(self, pcm: Float[np.ndarray, " S"]) -> Int[np.ndarray, "K T"]:
        """Codes of a whole signal: a scan of the same step."""
        return np.asarray(self._encode_file(self.params, pcm[None]))[0]

    def encode_full(self, pcm: Float[np.ndarray, " S"]) -> Int[np.ndarray, "K T"]:
        """Codes of a whole signal at once: what the other runtimes compute offline."""
        return np.asarray(self._encode_full(self.params, pcm[None]))[0]

    def decode_file(self, codes: Int[np.ndarray, "K T"]) -> Float[np.ndarray, " S"]:
        """Audio of a whole signal: a scan of the same step."""
        return np.asarray(self._decode_file(self.params, codes[None]))[0]


def compile_s(ours: Ours) -> float:
    """Seconds to trace and compile both steps, from the cache on disk where that is on."""
    jax.clear_caches()
    frame = (ours.batch, ours.mimi.config.frame_samples)
    codes = (ours.batch, ours.mimi.config.num_codebooks)
    calls: list[tuple[Any, Any]] = [
        (ours._encode, jax.ShapeDtypeStruct(frame, jnp.float32)),
        (ours._decode, jax.ShapeDtypeStruct(codes, jnp.int32)),
    ]
    started = time.perf_counter()
    for step, given in calls:
        step.lower(ours.params, ours.state, given, ours.mask).compile()
    return time.perf_counter() - started
