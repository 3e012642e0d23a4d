"""Audio of a corpus, read piece by piece: plain files, members of a tar, NIST SPHERE.

Everything libsndfile knows is read where it lies, a block at a time. What it does not know is
decoded whole by sph2pipe or PyAV: telephone calls of ten minutes, not recordings of ten hours.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from mimi_jax.audio_file import import_audio_extra

LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000  # outside, a header is damaged

_NIST = b"NIST_1A"
# A seek in these lands up to 0.1 s beside its aim (libsndfile 1.2.2): they are read forward only.
_FORWARD_ONLY = {"OGG", "MP3", "MPEG"}
_SKIP_SAMPLES = 2**20
_SPH2PIPE_TIMEOUT_S = 600


@dataclass(frozen=True)
class AudioRef:
    """Where audio lies: a file, or `size` bytes from `offset` on in one (a member of a tar)."""

    path: Path
    offset: int = 0
    size: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.size is None else f"{self.path} at byte {self.offset}"

    def read_bytes(self) -> bytes:
        """The whole content."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(-1 if self.size is None else self.size)


@runtime_checkable
class Pcm(Protocol):
    """Open audio."""

    sample_rate: int
    channels: int
    num_samples: int
    """As the header says: a damaged file may end before."""

    def read(self, start: int, count: int) -> Float32[np.ndarray, "C N"]:
        """Samples from `start` on; fewer than `count` at the end of the audio."""
        ...


@contextmanager
def open_pcm(ref: AudioRef) -> Iterator[Pcm]:
    """Opens audio of any kind.

    Yields:
        The open audio; it is closed when the block ends.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not audio, or of a kind that needs a program or package that is not here (the
            message says which).
        ImportError: the extra `audio` is not installed.
    """
    soundfile = import_audio_extra("soundfile")
    if not ref.path.is_file():
        raise FileNotFoundError(
            f"cannot read {ref}: got no file there, expected an audio file; check the corpus"
        )
    with open(ref.path, "rb") as raw:
        raw.seek(ref.offset)
        head = raw.read(1024)
    if b"embedded-" in head and head.startswith(_NIST):  # libsndfile takes it for plain samples
        yield DecodedPcm(*_decode_compressed_sphere(ref))
        return
    try:
        audio = _SoundFile(ref)
    except (soundfile.LibsndfileError, TypeError) as error:
        yield DecodedPcm(*_decode_with_av(ref, getattr(error, "error_string", str(error))))
        return
    try:
        yield audio
    finally:
        audio.close()


class _SoundFile:
    def __init__(self, ref: AudioRef) -> None:
        self._ref = ref
        self._open()
        self.sample_rate, self.channels, self.num_samples = (
            self._file.samplerate,
            self._file.channels,
            self._file.frames,
        )

    def _open(self) -> None:
        soundfile = import_audio_extra("soundfile")
        source = _Window(self._ref) if self._ref.size is not None else str(self._ref.path)
        self._file, self._position = soundfile.SoundFile(source), 0
        self._forward_only = self._file.format in _FORWARD_ONLY
        if self._forward_only:
            # Or soundfile would itself seek after every block it reads.
            self._file.seekable = lambda: False

    def close(self) -> None:
        self._file.close()

    def read(self, start: int, count: int) -> Float32[np.ndarray, "C N"]:
        if start >= self.num_samples:
            return np.empty((self.channels, 0), np.float32)
        try:
            self._go_to(start)
            samples = self._file.read(count, dtype="float32", always_2d=True)
        except RuntimeError as error:  # LibsndfileError is one
            raise ValueError(
                f"cannot read {self._ref}: got {str(error).rstrip('.')!r} at sample {start},"
                " expected whole audio; repair or remove the file"
            ) from error
        self._position = start + len(samples)
        return np.ascontiguousarray(samples.T)

    def _go_to(self, start: int) -> None:
        if not self._forward_only:
            if start != self._position:
                self._file.seek(start)
            return
        if start < self._position:
            self._file.close()
            self._open()
        while self._position < start:
            skipped = len(self._file.read(min(_SKIP_SAMPLES, start - self._position)))
            if not skipped:
                break
            self._position += skipped


class DecodedPcm:
    """Audio in memory."""

    def __init__(self, pcm: Float32[np.ndarray, "C S"], sample_rate: int) -> None:
        self._pcm, self.sample_rate = pcm, sample_rate
        self.channels, self.num_samples = pcm.shape

    def read(self, start: int, count: int) -> Float32[np.ndarray, "C N"]:
        """Samples from `start` on; fewer than `count` at the end of the audio."""
        return self._pcm[:, start : start + count]


class _Window(io.RawIOBase):
    """A part of a file as a file, for libsndfile."""

    def __init__(self, ref: AudioRef) -> None:
        self._file = open(ref.path, "rb")  # noqa: SIM115
        self._offset, self._size, self._at = ref.offset, ref.size or 0, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset + self._at)
        count = self._file.readinto(
            memoryview(buffer)[: max(0, min(len(buffer), self._size - self._at))]
        )
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _decode_compressed_sphere(ref: AudioRef) -> tuple[Float32[np.ndarray, "C S"], int]:
    """SPHERE with shorten inside, as the Fisher corpus has it."""
    soundfile = import_audio_extra("soundfile")
    program = shutil.which("sph2pipe")
    if program is None:
        return _decode_with_av(ref, "compressed SPHERE, and no sph2pipe on PATH")
    done = subprocess.run(
        [program, "-p", "-f", "wav", str(ref.path)],
        capture_output=True,
        check=False,
        timeout=_SPH2PIPE_TIMEOUT_S,
    )
    if done.returncode != 0 or not done.stdout:
        reason = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise ValueError(
            f"cannot read {ref}: got {reason!r} from sph2pipe, expected a WAV file; repair or"
            " remove the file"
        )
    samples, rate = soundfile.read(io.BytesIO(done.stdout), dtype="float32", always_2d=True)
    return np.ascontiguousarray(samples.T), rate


def _decode_with_av(ref: AudioRef, why_not: str) -> tuple[Float32[np.ndarray, "C S"], int]:
    """What libsndfile does not know, whole. FFmpeg's shorten knows 16-bit PCM, not mu-law."""
    unreadable = (
        f"cannot read {ref}: got {why_not.rstrip('.')!r}, expected audio that libsndfile, sph2pipe"
        " or PyAV can read; convert it to WAV, put sph2pipe on PATH (mu-law SPHERE of the LDC), or"
        " run pip install 'moshi-jax[corpora]'"
    )
    try:
        import av
    except ImportError as error:
        raise ValueError(unreadable) from error
    blocks, rate = [], 0
    try:
        source = str(ref.path) if ref.size is None else io.BytesIO(ref.read_bytes())
        with av.open(source) as container:
            resampler = av.AudioResampler(format="fltp")
            for frame in container.decode(audio=0):  # pyrefly: ignore
                rate = frame.sample_rate
                blocks += [part.to_ndarray() for part in resampler.resample(frame)]
            blocks += [part.to_ndarray() for part in resampler.resample(None)]
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise ValueError(f"{unreadable} (PyAV: {error})") from error
    if not blocks:
        raise ValueError(f"{unreadable} (PyAV: no audio in it)")
    return np.concatenate(blocks, axis=1).astype(np.float32, copy=False), rate
