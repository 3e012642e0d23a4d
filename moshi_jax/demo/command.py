"""`moshi-jax demo`: a PyTorch checkpoint in, GRPO, what it changed, a PyTorch checkpoint out."""

import contextlib
import json
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import jax
import tyro
from rich.console import Console
from rich.table import Table

from convert import read_configs, to_jax
from grpo.tracking import log_progress
from helium_jax import TextTokenizer
from layers_jax import atomic_path
from mimi_jax import read_audio
from moshi_jax.demo.comparison import table
from moshi_jax.demo.examples import choose, save_picture, timelines, write_examples
from moshi_jax.demo.experiment import Clock, Experiment, Recipe, Result, prepare
from moshi_jax.demo.exported import check_export
from moshi_jax.stream import embedded_checkpoint

COMPARE_S = 8.0  # of a held-out conversation, that trained and exported model both answer


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Train the embedded model with GRPO, and show on held-out segments what became better.

    The run folder gets `result.json` (every figure printed), `picture.png`, `listen/` (stereo, user
    left, agent right, before and after), `metrics.jsonl`, `checkpoints/` (orbax) and `export/` (the
    PyTorch release).
    """

    checkpoint: Path = field(default_factory=embedded_checkpoint)
    """Checkpoint folder as Kyutai publishes it; the embedded one by default."""
    run_dir: Path = Path("runs/demo")
    """A new or empty folder; an earlier demo in it is replaced."""
    quick: bool = False
    """A third of the training and fewer held-out segments: a smaller effect, sooner."""
    epochs: int | None = None
    """Rounds of rollouts and updates; by default as many as take some minutes on 2 cores."""
    groups_per_epoch: int = 16
    """Segments rolled out an epoch, of all four axes."""
    num_generations: int = 8
    """Rollouts of each segment, which is also the number of updates an epoch."""
    learning_rate: float = 3e-4
    """Of AdamW; a small model needs more than the paper's 2e-7."""
    seed: int = 0
    """Of training; the held-out segments and the draws on them are always the same."""
    per_axis: int | None = None
    """Held-out segments of each axis; 60 by default, 24 with --quick."""
    rollouts: int = 2
    """Of each held-out segment."""
    devices: int = 2
    """Devices to train on; a CPU is divided into as many."""

    def recipe(self) -> Recipe:
        """Of the training."""
        full = Recipe(
            seed=self.seed,
            groups_per_epoch=self.groups_per_epoch,
            num_generations=self.num_generations,
            learning_rate=self.learning_rate,
        )
        if self.quick:
            full = replace(full, epochs=max(1, full.epochs // 3), train_conversations=20)
        return full if self.epochs is None else replace(full, epochs=self.epochs)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; see `DemoOptions`."""
    options = tyro.cli(DemoOptions, args=argv, prog="moshi-jax demo")
    with contextlib.suppress(RuntimeError):  # too late: the trainer says whether they are enough
        jax.config.update("jax_num_cpu_devices", options.devices)
    run_dir = _new_run(options.run_dir)
    log_progress()
    # A file has no width: 80 columns would cut the names of the rewards.
    console = Console(width=None if sys.stdout.isatty() else 150)
    clock, recipe = Clock(), options.recipe()
    per_axis = options.per_axis or (24 if options.quick else 60)

    def stage(name: str, found: str) -> None:
        console.print(f"[bold]{name}[/bold] ({clock.lap(name):.0f} s): {found}")

    to_jax(options.checkpoint, run_dir / "checkpoint")
    lm = read_configs(run_dir / "checkpoint").lm
    stage("convert", f"{options.checkpoint} to orbax: {lm.num_layers} layers of {lm.dim}")

    data = prepare(
        run_dir / "data",
        seed=recipe.seed,
        train_conversations=recipe.train_conversations,
        held_out_conversations=max(10, round(1.6 * per_axis)),
    )
    stage("segments", f"{data.train} and, of other sentences, {data.held_out}")

    experiment = Experiment(
        checkpoint=run_dir / "checkpoint",
        data=data,
        devices=options.devices,
        per_axis=per_axis,
        rollouts=options.rollouts,
        scratch=run_dir / "scratch",
    )
    held_out = experiment.held_out()
    base = held_out.score(None)
    count = len(base) * options.rollouts
    stage("base", f"{count} rollouts of {len(base)} held-out segments")

    trained = experiment.train(recipe, run_dir)
    updates = recipe.epochs * recipe.num_generations
    stage("train", f"{updates} updates on {options.devices} devices, pmapped")

    tuned = held_out.score(trained.params)
    stage("tuned", f"{count} rollouts, same segments, same draws")

    tokenizer = TextTokenizer(read_configs(experiment.checkpoint).tokenizer)
    chosen = {base[row].segment_id for row in choose(base, tuned).values()}
    for name, params in (("base", None), ("tuned", trained.params)):
        write_examples(run_dir / "listen", name, held_out.samples(params, chosen), tokenizer)
    user = read_audio(data.user_audio, sample_rate=24_000, channels=2)[1]
    same = check_export(
        options.checkpoint, trained.params, trained.export, user[: int(COMPARE_S * 24_000)]
    )
    stage("export", f"{trained.export}: the same tokens in all of {same} frames")

    result = experiment.result(recipe, trained, base, tuned, clock.seconds)
    save_picture(run_dir / "picture.png", result, timelines(data.held_out, base, tuned))
    write_result(run_dir / "result.json", result)
    console.print(table(result.axes, title="Held-out segments: mean [95 % interval]"))
    console.print(_summary(result))
    console.print(f"look at {run_dir / 'picture.png'}, listen to {run_dir / 'listen'}")
    return 0


def write_result(path: Path, result: Result) -> None:
    """`result.json`."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(result.to_dict(), indent=1) + "\n", encoding="utf-8")


def _summary(result: Result) -> Table:
    found = Table("KL to the base", *result.kl_by_axis, title="Nats a frame, held-out")
    found.add_row(f"{result.kl:.3f}", *(f"{kl:.3f}" for kl in result.kl_by_axis.values()))
    return found


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
