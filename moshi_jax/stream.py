"""`moshi-jax stream IN... OUT`: full-duplex sessions over audio files, a frame at a time."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from convert import Checkpoint, read_configs
from helium_jax import DuplexSession, Sampling
from mimi_jax import check_target, read_audio, write_audio
from moshi_jax.converse import Checkpoints, converse
from moshi_jax.loading import PRECISIONS, PrecisionName, load
from moshi_jax.voice import read_voice

__all__ = ["StreamOptions", "embedded_checkpoint", "main"]


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """Full-duplex sessions over files: the users' audio in, the agents' audio and text out.

    Output frame t is what the agent says while the user says input frame t; each file has the
    length of its input, at the codec's 24 kHz. Text is printed as it comes. Several inputs run side
    by side in one batch, each as it would alone; OUT is then a folder.
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IN... OUT")]
    """The users' audio (any format, sample rate and channel count that libsndfile reads), and where
    the agent's goes: a file (.wav or .flac), a folder for several inputs."""
    checkpoint: Path | None = None
    """Checkpoint folder; the embedded one by default."""
    arch: Path | None = None
    """JSON file with the shapes of a model that its folder does not describe."""
    channel: int | None = None
    """Channel of the inputs that the user is on, from 0; the mean of all by default."""
    two_channel: bool = False
    """Write the agent on the left channel and the user on the right."""
    voice: str | None = None
    """PersonaPlex: voice of the agent, a name in the checkpoint's voices or an audio file."""
    role: str = ""
    """PersonaPlex: who the agent is, in words; system tags are put around it."""
    beyond_context: bool = False
    """PersonaPlex: let voice and role be longer than the model's context."""
    condition: tuple[str, ...] = ()
    """NAME=VALUE for each condition of a model that has conditions, such as Hibiki."""
    precision: PrecisionName | None = None
    """Number format of the language model. By default f32 on a CPU, where a batch then rounds as
    its rows would alone, else that of the checkpoint."""
    greedy: bool = False
    """Take the most probable token everywhere instead of sampling as the checkpoint recommends."""
    seed: int = 0
    """Of all random draws."""
    state: Path | None = None
    """File to save the sessions to while they run, whole or not at all."""
    state_every_s: float = 10.0
    """Seconds of audio between two saves."""
    resume: bool = False
    """Go on from --state; OUT then begins where that was saved."""
    until_s: float | None = None
    """Leave off after so many seconds of the inputs; with --state, to be resumed."""

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The users' audio files."""
        return self.paths[:-1]

    @property
    def output(self) -> Path:
        """Where the agents' audio goes."""
        return self.paths[-1]


def main(argv: list[str] | None = None) -> int:
    """Runs the command; see `StreamOptions`."""
    options = tyro.cli(StreamOptions, args=argv, prog="moshi-jax stream")
    if len(options.paths) < 2:
        print("moshi-jax stream: expected IN... OUT, see --help", file=sys.stderr)
        return 2
    targets = _targets(options)
    folder = options.checkpoint or embedded_checkpoint()
    checkpoint = read_configs(folder, arch=options.arch)
    sample_rate = checkpoint.mimi.sample_rate
    users = [_user_audio(path, options.channel, sample_rate) for path in options.inputs]
    voice = read_voice(options.voice, folder, sample_rate) if options.voice else None
    session = _load(options, checkpoint)

    started = time.perf_counter()
    if checkpoint.lm.timing == "personaplex" and not options.resume:
        session.prompt(voice, options.role, beyond_context=options.beyond_context)
    elif voice is not None or options.role:
        raise ValueError(
            "--voice and --role are for the start of a PersonaPlex session, got "
            f"{'a session to resume' if options.resume else folder}; leave them out"
        )
    session.warmup()
    compiled = time.perf_counter()
    spoken, first = _talk(session, users, options)
    ended = time.perf_counter()
    if not spoken:
        raise ValueError(
            f"{options.state} was saved at the end of these recordings, expected one with "
            "something left to hear; leave --resume out to hear them again"
        )

    audio_s = 0.0
    for row, (target, user) in enumerate(zip(targets, users, strict=True)):
        agent = np.concatenate([pcm[row] for pcm in spoken])
        start = first * session.frame_samples
        user = user[start : start + len(agent)]
        agent = agent[: len(user)]
        audio_s = max(audio_s, len(agent) / sample_rate)
        write_audio(target, np.stack([agent, user]) if options.two_channel else agent, sample_rate)
    busy_s = ended - compiled
    print()
    print(
        f"{options.output}: {audio_s:.2f} s of audio in {busy_s:.2f} s, real-time factor "
        f"{busy_s / audio_s:.3f} (below 1 is faster than live), compiled in "
        f"{compiled - started:.1f} s",
        file=sys.stderr,
    )
    return 0


def embedded_checkpoint() -> Path:
    """The checkpoint folder inside the package."""
    return Path(str(files("moshi_jax.nano")))


def _targets(options: StreamOptions) -> list[Path]:
    """Output files; anything that cannot be written is told before the work."""
    if options.resume and options.state is None:
        raise ValueError("--resume needs --state, the file that the session was saved to")
    if options.state_every_s <= 0:
        raise ValueError(f"--state-every-s is {options.state_every_s}, expected more than 0")
    if len(options.inputs) == 1:
        check_target(options.output)
        return [options.output]
    names = [f"{path.stem}.wav" for path in options.inputs]
    if len(set(names)) != len(names):
        raise ValueError(f"inputs would all be written as {names}, expected different file names")
    if options.output.suffix or options.output.is_file():
        raise ValueError(f"{options.output} is one file, expected a folder for {len(names)} inputs")
    options.output.mkdir(parents=True, exist_ok=True)
    targets = [options.output / name for name in names]
    for target in targets:
        check_target(target)
    return targets


def _load(options: StreamOptions, checkpoint: Checkpoint) -> DuplexSession:
    conditions = {}
    for given in options.condition:
        name, separator, value = given.partition("=")
        if not separator:
            raise ValueError(f"--condition is {given!r}, expected NAME=VALUE")
        conditions[name] = value
    chosen = options.precision or ("f32" if jax.default_backend() == "cpu" else None)
    batch = len(options.inputs)
    return load(
        checkpoint.directory,
        batch=batch,
        precision=PRECISIONS[chosen],
        sampling=Sampling.greedy() if options.greedy else None,
        seed=options.seed,
        arch=options.arch,
        conditions=conditions,
        row_ids=[0] * batch,  # each draws as it would alone
    )


def _talk(
    session: DuplexSession, users: Sequence[np.ndarray], options: StreamOptions
) -> tuple[list[np.ndarray], int]:
    """Runs the sessions, printing their text; returns the agents' frames and the first's number."""
    frame_s = session.frame_samples / session.mimi.config.sample_rate
    checkpoints = None
    if options.state is not None:
        checkpoints = Checkpoints(options.state, max(1, round(options.state_every_s / frame_s)))
    stop = None if options.until_s is None else round(options.until_s / frame_s)
    spoken: list[np.ndarray] = []
    first: int | None = None
    for said in converse(
        session, users, checkpoints=checkpoints, resume=options.resume, stop_frame=stop
    ):
        first = said.index if first is None else first
        spoken.append(np.asarray(said.frame.pcm))
        for row, piece in enumerate(session.pieces(said.frame)):
            if piece and said.running[row]:
                alone = len(users) == 1
                text = piece if alone else f"{options.inputs[row].name}: {piece}\n"
                print(text, end="", flush=True)
    return spoken, first or 0


def _user_audio(path: Path, channel: int | None, sample_rate: int) -> np.ndarray:
    if channel is None:
        return read_audio(path, sample_rate=sample_rate, channels=1)[0]
    channels = read_audio(path, sample_rate=sample_rate)
    if not 0 <= channel < len(channels):
        raise ValueError(
            f"--channel is {channel}, expected 0 to {len(channels) - 1}: {path} has {len(channels)}"
        )
    return channels[channel]
