"""Recordings of any length through one compiled program: blocks of frames, the state carried on.

The codes are those of a live session, whatever the block; memory does not grow with the recording.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from layers_jax.functional import Params
from mimi_jax.codec import decode_step, encode_step, init_state
from mimi_jax.model import Mimi
from mimi_jax.state import MimiState

__all__ = ["BlockCodec"]


class BlockCodec:
    """Encodes and decodes B recordings side by side; each gives what it gives alone.

    Args:
      mimi: the codec's definition.
      params: its parameters.
      batch: recordings B a call.
      block_frames: frames N of each row that one call of the program runs.
    """

    def __init__(self, mimi: Mimi, params: Params, *, batch: int = 1, block_frames: int = 125):
        if batch < 1 or block_frames < 1:
            raise ValueError(
                f"got batch {batch} and block_frames {block_frames}, expected at least 1 of each"
            )
        self.mimi, self.batch, self.block_frames = mimi, batch, block_frames
        self._params = params
        self._encode, self._decode = self._scan(encode_step), self._scan(decode_step)

    def encode(self, signals: Sequence[Iterable[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Codes of each signal, block by block.

        Args:
          signals: B or fewer; each an iterable of pieces [s] of PCM, of any lengths. A last frame
            that is not full is completed with silence.

        Yields:
          A block's codes [K, n] int32 of every signal, n below N where it ends and 0 after that.

        Raises:
          ValueError: samples that are not finite floats in about [-1, 1] (see `check_pcm`).
        """
        frame = self.mimi.config.frame_samples
        rows = [_Pieces(map(check_pcm, signal), frame * self.block_frames) for signal in signals]

        def padded(piece: np.ndarray) -> np.ndarray:
            whole = np.pad(piece, (0, -len(piece) % frame))
            return whole.reshape(len(whole) // frame, frame)

        blocks = self._run(self._encode, rows, padded, (frame,), np.float32)
        return ([codes.T for codes in block] for block in blocks)

    def decode(self, signals: Sequence[Iterable[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Audio of each signal, block by block.

        Args:
          signals: B or fewer; each an iterable of pieces [K, t] of codes, of any lengths.

        Yields:
          A block's PCM [s] of every signal.

        Raises:
          ValueError: codes outside the codebooks, or of another shape or format (`check_codes`).
        """
        config = self.mimi.config

        def checked(piece: np.ndarray) -> np.ndarray:
            return check_codes(piece, bins=config.quantizer.bins, most=config.quantizer.n_q).T

        rows = [_Pieces(map(checked, signal), self.block_frames) for signal in signals]
        levels = next((row.shape for row in rows if row.shape), (config.num_codebooks,))
        blocks = self._run(self._decode, rows, lambda piece: piece, levels, np.int32)
        return ([pcm.reshape(-1) for pcm in block] for block in blocks)

    def _run(
        self,
        program: Callable[..., Any],
        rows: list["_Pieces"],
        frames_of: Callable[[np.ndarray], np.ndarray],
        shape: tuple[int, ...],
        dtype: Any,
    ) -> Iterator[list[np.ndarray]]:
        if len(rows) > self.batch:
            raise ValueError(f"got {len(rows)} signals, expected at most {self.batch}, the batch")
        state = init_state(self.mimi, self.batch)
        while True:
            given = np.zeros((self.block_frames, self.batch, *shape), dtype)
            mask, counts = np.zeros((self.block_frames, self.batch), bool), []
            for index, row in enumerate(rows):
                frames = frames_of(row.take())
                counts.append(len(frames))
                if len(frames):
                    given[: len(frames), index], mask[: len(frames), index] = frames, True
            if not any(counts):
                return
            state, out = program(self._params, state, given, mask)
            taken = np.asarray(out)
            yield [taken[:count, index] for index, count in enumerate(counts)]

    def _scan(self, step: Callable[..., Any]) -> Callable[..., Any]:
        mimi = self.mimi

        def run(params: Params, state: MimiState, frames: jax.Array, mask: jax.Array) -> Any:
            def body(state: MimiState, call: tuple[jax.Array, jax.Array]) -> Any:
                return step(mimi, params, state, *call)

            return jax.lax.scan(body, state, (frames, mask))

        return jax.jit(run, donate_argnums=1)


class _Pieces:
    """Pieces of any length, taken in equal ones; the last may be shorter."""

    def __init__(self, pieces: Iterator[np.ndarray], size: int):
        self._pieces, self._size = pieces, size
        first = next(pieces, None)
        self._held = [] if first is None else [first]
        self.shape: tuple[int, ...] = () if first is None else first.shape[1:]

    def take(self) -> np.ndarray:
        while sum(map(len, self._held)) < self._size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            if piece.shape[1:] != self.shape:
                raise ValueError(
                    f"a piece has {piece.shape[1:]} values a frame, expected {self.shape} as the "
                    "pieces before it"
                )
            self._held.append(piece)
        joined = np.concatenate(self._held) if self._held else np.zeros((0, *self.shape))
        self._held = [joined[self._size :]]
        return joined[: self._size]


LOUDEST = 4.0  # of float PCM: resampling and mixing overshoot 1, integers are in the thousands


def check_pcm(pcm: np.ndarray) -> np.ndarray:
    """`pcm` as f32 samples [s].

    Silence and clipped audio are audio; what is not is refused.

    Raises:
      ValueError: not one channel of floats, NaN or infinite, or integers that were cast to float.
    """
    samples = np.asarray(pcm)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"got PCM {samples.dtype}{list(samples.shape)}, expected one channel [samples] of "
            "floats in [-1, 1]; pick a channel, divide 16-bit integers by 32768"
        )
    if not np.isfinite(samples).all():
        count, first = int((~np.isfinite(samples)).sum()), int(np.argmin(np.isfinite(samples)))
        raise ValueError(
            f"got {count} NaN or infinite sample(s), the first at {first}, expected finite values; "
            "repair the audio"
        )
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > LOUDEST:
        raise ValueError(
            f"got samples up to {peak:.0f}, expected about [-1, 1]; divide 16-bit integers by 32768"
        )
    return samples.astype(np.float32)


def check_codes(codes: np.ndarray, *, bins: int, most: int) -> np.ndarray:
    """`codes` as int32 [K, t].

    Raises:
      ValueError: not integers [K, t] with 1 to `most` codebooks of `bins` entries.
    """
    values = np.asarray(codes)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
            f"got codes {values.dtype}{list(values.shape)}, expected integers [codebooks, frames]"
        )
    if not 1 <= len(values) <= most:
        raise ValueError(f"got {len(values)} codebooks, expected 1 to {most}; drop the others")
    if values.size and not 0 <= values.min() <= values.max() < bins:
        raise ValueError(
            f"codes span {values.min()} to {values.max()}, expected 0 to {bins - 1}; "
            "drop frames that are not ready before decoding"
        )
    return values.astype(np.int32)
