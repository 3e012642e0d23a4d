"""`moshi-jax stream IN OUT`: a full-duplex session over an audio file, a frame at a time."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from convert import read_configs
from helium_jax import DuplexFrame, DuplexSession, Sampling, TextTokenizer
from mimi_jax import check_target, read_audio, write_audio
from moshi_jax.loading import PRECISIONS, PrecisionName, load

__all__ = ["StreamOptions", "converse", "embedded_checkpoint", "main"]


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """A full-duplex session over a file: the user's audio in, the agent's audio and text out.

    Output frame t is what the agent says while the user says input frame t; the file has the length
    of the input, mono at the codec's 24 kHz. Text is printed as it comes.
    """

    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """The user's audio: any format, sample rate and channel count that libsndfile reads."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Where the agent's audio goes (.wav or .flac)."""
    checkpoint: Path | None = None
    """Checkpoint folder; the embedded tiny one by default."""
    channel: int | None = None
    """Channel of the input that the user is on, from 0; the mean of all by default."""
    precision: PrecisionName | None = None
    """Number format of the language model (int8: its matrices); the checkpoint's by default."""
    greedy: bool = False
    """Take the most probable token everywhere instead of sampling as the checkpoint recommends."""
    seed: int = 0
    """Of all random draws."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; see `StreamOptions`."""
    options = tyro.cli(StreamOptions, args=argv, prog="moshi-jax stream")
    check_target(options.output)
    folder = options.checkpoint or embedded_checkpoint()
    checkpoint = read_configs(folder)
    pcm = _user_audio(options, checkpoint.mimi.sample_rate)
    tokenizer = TextTokenizer(checkpoint.tokenizer)
    precision = PRECISIONS[options.precision]
    sampling = Sampling.greedy() if options.greedy else None
    session = load(folder, precision=precision, sampling=sampling, seed=options.seed)

    started = time.perf_counter()
    session.warmup()
    compiled = time.perf_counter()
    spoken = []
    for frame in converse(session, pcm):
        spoken.append(np.asarray(frame.pcm[0]))
        print(tokenizer.piece(int(frame.text[0])), end="", flush=True)
    ended = time.perf_counter()

    write_audio(options.output, np.concatenate(spoken)[: len(pcm)], checkpoint.mimi.sample_rate)
    audio_s, busy_s = len(pcm) / checkpoint.mimi.sample_rate, ended - compiled
    print()
    print(
        f"{options.output}: {audio_s:.2f} s of audio in {busy_s:.2f} s, real-time factor "
        f"{busy_s / audio_s:.3f} (below 1 is faster than live), compiled in "
        f"{compiled - started:.1f} s",
        file=sys.stderr,
    )
    return 0


def converse(session: DuplexSession, pcm: np.ndarray) -> Iterator[DuplexFrame]:
    """The agent's frames, one for each of the user's: frame t answers to what was heard before it.

    The session gives frame t at call t + delay, and hears frame t at call t + 1 (nothing is heard
    at call 0); the calls that this needs before and after the file run on silence. The next call
    is under way before a frame is handed out, so the device does not wait for the caller.

    Args:
      session: a fresh session of batch 1.
      pcm: [S] samples of the user; the last frame is padded with silence.
    """
    size, delay = session.frame_samples, session.delay_frames
    count = -(-len(pcm) // size)
    heard = np.zeros((count + max(delay, 1), size), np.float32)
    heard[1 : 1 + count].reshape(-1)[: len(pcm)] = pcm[: size * (len(heard) - 1)]
    pending = None
    for call in range(count + delay):
        frame = session.step(heard[call][None])
        if pending is not None:
            yield pending
        pending = frame if call >= delay else None
    if pending is not None:
        yield pending


def embedded_checkpoint() -> Path:
    """The checkpoint folder inside the package."""
    return Path(str(files("moshi_jax"))) / "tiny"


def _user_audio(options: StreamOptions, sample_rate: int) -> np.ndarray:
    if options.channel is None:
        return read_audio(options.input, sample_rate=sample_rate, channels=1)[0]
    channels = read_audio(options.input, sample_rate=sample_rate)
    if not 0 <= options.channel < len(channels):
        raise ValueError(
            f"--channel is {options.channel}, expected 0 to {len(channels) - 1}: {options.input} "
            f"has {len(channels)}"
        )
    return channels[options.channel]
