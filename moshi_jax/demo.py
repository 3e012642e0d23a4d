"""`moshi-jax demo`: the whole road once, on any checkpoint folder and any two-channel recording.

A PyTorch checkpoint comes in, training segments are cut out of a conversation, GRPO updates the
model on several devices, and a PyTorch checkpoint goes out that gives the same tokens.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from convert import load_mimi, load_moshi, read_configs, to_jax
from grpo import GRPOConfig, train
from grpo.config import OptimizerConfig
from grpo.evaluate import evaluate
from grpo.extract import ExtractConfig, extract
from grpo.selection import SelectionConfig
from grpo.tracking import log_progress
from helium_jax import DuplexSession, Sampling
from layers_jax import Precision
from layers_jax.functional import Params
from mimi_jax import read_audio
from moshi_jax.converse import converse
from moshi_jax.sample import conversation_path
from moshi_jax.stream import embedded_checkpoint

__all__ = ["DemoOptions", "main", "stream_tokens"]

BUCKET_FRAMES = 416  # the longest segment (30 s) behind the prefix of silence (3 s)
SAMPLE_USER_CHANNEL = 1  # the sample conversation has the agent on the left, the user on the right


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Convert, cut segments, train with GRPO, export, and compare the export with what was trained.

    The run folder holds `config.json`, `metrics.jsonl`, `checkpoints/` (orbax) and `export/` (the
    PyTorch release), beside the converted checkpoint and the segments.
    """

    checkpoint: Path = field(default_factory=embedded_checkpoint)
    """Checkpoint folder as Kyutai publishes it; the embedded tiny one by default."""
    recording: Path = field(default_factory=conversation_path)
    """Two-channel conversation to cut segments from; the sample conversation by default."""
    run_dir: Path = Path("runs/demo")
    """A new or empty folder; an earlier demo in the default one is replaced."""
    epochs: int = 4
    """Rounds of rollouts and updates."""
    groups_per_epoch: int = 8
    """Segments rolled out an epoch."""
    num_generations: int = 8
    """Rollouts of each segment."""
    learning_rate: float = 2e-4
    """Of AdamW; a small model needs more than the recipe's 2e-7."""
    compare_groups: int = 12
    """Segments on which base and tuned model are compared, with equal random draws."""
    devices: int = 2
    """Devices to train on; a CPU is divided into as many."""
    compare_s: float = 8.0
    """Seconds of the recording that trained and exported model both answer."""


class Road:
    """What happened so far: a row a stage, with how long it took."""

    def __init__(self, console: Console):
        self.console = console
        self.rows: list[tuple[str, str, float]] = []

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[list[str]]:
        """Times a stage; what it found is appended to the list it gets."""
        self.console.print(f"[bold]{name}[/bold] ...")
        found: list[str] = []
        started = time.perf_counter()
        yield found
        self.rows.append((name, "; ".join(found), time.perf_counter() - started))

    def table(self) -> Table:
        """The rows."""
        table = Table("stage", "what happened", "s", title="The whole road")
        table.columns[2].justify = "right"
        for name, found, seconds in self.rows:
            table.add_row(name, found, f"{seconds:.1f}")
        return table


def main(argv: list[str] | None = None) -> int:
    """Runs the command; see `DemoOptions`."""
    options = tyro.cli(DemoOptions, args=argv, prog="moshi-jax demo")
    with contextlib.suppress(RuntimeError):  # too late: the trainer says whether they are enough
        jax.config.update("jax_num_cpu_devices", options.devices)
    run_dir = _new_run(options.run_dir)
    log_progress()
    console = Console()
    road = Road(console)

    with road.stage("convert") as found:
        to_jax(options.checkpoint, run_dir / "checkpoint")
        lm = read_configs(run_dir / "checkpoint").lm
        found.append(f"{options.checkpoint} to orbax: {lm.num_layers} layers of {lm.dim}")

    with road.stage("segments") as found:
        everything = SelectionConfig(max_per_conversation=1000)
        config = ExtractConfig(axes=("pause", "turn"), selection=everything)
        summary = extract(options.recording, run_dir / "segments", config)
        counts = summary["segments"].items()
        found.append(", ".join(f"{sum(splits.values())} {axis}" for axis, splits in counts))

    config = GRPOConfig(
        checkpoint=run_dir / "checkpoint",
        segments=run_dir / "segments",
        run_dir=run_dir,
        epochs=options.epochs,
        groups_per_epoch=options.groups_per_epoch,
        num_generations=options.num_generations,
        devices=options.devices,
        precision="f32",
        axes=("pause", "turn"),
        no_context=True,
        no_judge=True,
        # One length for all: a rollout ends with its own segment, so padding costs memory only.
        bucket_frames=(BUCKET_FRAMES,),
        checkpoint_every=options.epochs,
        optimizer=OptimizerConfig(learning_rate=options.learning_rate),
    )
    with road.stage("train") as found:
        result = train(config)
        epochs = [json.loads(line) for line in result.metrics.read_text().splitlines()]
        updates = options.epochs * options.num_generations
        found.append(f"{updates} updates on {options.devices} devices, pmapped")
        found.append(f"KL to the base {epochs[-1]['kl']:.2g} nats")

    with road.stage("base against tuned") as found:
        rewards = evaluate(
            config, {"base": None, "tuned": result.params}, groups=options.compare_groups
        )
        rollouts = options.compare_groups * options.num_generations
        found.append(f"{rollouts} rollouts of each, same segments, same draws")

    with road.stage("export and compare") as found:
        length = int(options.compare_s * 24_000)
        user = read_audio(options.recording, sample_rate=24_000, channels=2)
        pcm = user[SAMPLE_USER_CHANNEL, :length]
        trained = stream_tokens(options.checkpoint, result.params, pcm)
        exported = stream_tokens(result.export, None, pcm)
        same = int((trained == exported).all(axis=1).sum())
        found.append(f"{result.export}: {same} of {len(trained)} frames give the same tokens")

    console.print(_reward_table(rewards), road.table())
    if same != len(trained):
        raise ValueError(
            f"{result.export} gives other tokens than the trained parameters in "
            f"{len(trained) - same} of {len(trained)} frames, expected none"
        )
    return 0


def stream_tokens(folder: Path, params: Params | None, pcm: np.ndarray) -> np.ndarray:
    """Tokens of a greedy f32 session over a file.

    Args:
      folder: checkpoint folder; gives the codec, and the model's shape.
      params: the model's parameters; those of the folder if None.
      pcm: [S] samples of the user.

    Returns:
      [T, 1 + Q] text and codes, a frame a row.
    """
    lm, stored = load_moshi(folder, precision=Precision.f32())
    mimi, mimi_params = load_mimi(folder)
    session = DuplexSession(
        mimi, mimi_params, lm, stored if params is None else params, sampling=Sampling.greedy()
    )
    frames = [np.append(said.frame.text, said.frame.codes) for said in converse(session, [pcm])]
    return np.stack(frames)


def _new_run(run_dir: Path) -> Path:
    """An empty run folder. Only what a demo has written is ever removed."""
    marker = run_dir / ".demo"
    if marker.is_file():
        shutil.rmtree(run_dir)
    elif run_dir.exists() and any(run_dir.iterdir()):
        raise FileExistsError(
            f"{run_dir} is in use and not by a demo, expected a new or empty folder; "
            "choose another --run-dir"
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    marker.touch()
    return run_dir


def _reward_table(rewards: dict[str, dict[str, float]]) -> Table:
    """Mean reward of each axis for the base and the tuned model."""
    table = Table("mean reward", *rewards, title="Base and tuned on the same segments and draws")
    for name in rewards["base"]:
        table.add_row(name, *(f"{values[name]:.3f}" for values in rewards.values()))
    return table
