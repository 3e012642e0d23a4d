"""What a slow judge adds to an epoch of training: the same epoch, at once and with its wait."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import tyro

from bench.machine import describe_machine
from bench.timing import alternate
from convert import load_mimi, load_moshi
from grpo.collect import Models, Scorer, ScoringPool
from grpo.config import GRPOConfig, OptimizerConfig
from grpo.data import group_batches
from grpo.epoch import Run, roll_out, update_epoch
from grpo.extract import ExtractConfig, extract
from grpo.mesh import make_mesh
from grpo.programs import make_programs
from grpo.score import Rewards, score_group
from grpo.train import data_config
from grpo.watch import load_monitors
from layers_jax import Precision
from rewards import load_vad

__all__ = ["OverlapOptions", "main"]


@dataclass(frozen=True, kw_only=True)
class OverlapOptions:
    """Time epochs with a judge that answers at once and with one that takes its time."""

    checkpoint: Path = field(default_factory=lambda: Path("moshi_jax/nano"))
    """Checkpoint folder."""
    recording: Path = field(default_factory=lambda: Path("moshi_jax/sample"))
    """Two-channel conversations to cut segments from."""
    latency_s: float = 0.5
    """Of every call to the slow judge; calls run side by side."""
    groups: int = 8
    """Groups an epoch."""
    num_generations: int = 4
    """Rollouts of each."""
    devices: int = 2
    """Devices."""
    rounds: int = 3
    """Epochs of each that are timed."""


def waiting(latency_s: float) -> Scorer:
    """The rules, then a wait as for the verdicts on a group, which are asked for side by side."""

    def scorer(*arguments: Any, **options: Any) -> Rewards:
        rewards = score_group(*arguments, **options)
        time.sleep(latency_s)
        return rewards

    return scorer


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `OverlapOptions`."""
    options = tyro.cli(OverlapOptions, args=argv, prog="moshi-jax bench overlap")
    jax.config.update("jax_num_cpu_devices", options.devices)
    with TemporaryDirectory() as folder:
        extract(options.recording, Path(folder) / "segments", ExtractConfig(axes=("turn",)))
        config = GRPOConfig(
            checkpoint=options.checkpoint,
            segments=Path(folder) / "segments",
            run_dir=Path(folder) / "run",
            axes=("turn",),
            groups_per_epoch=options.groups,
            num_generations=options.num_generations,
            devices=options.devices,
            bucket_frames=(416,),
            no_context=True,
            precision="f32",
            optimizer=OptimizerConfig(learning_rate=1e-6),
        )
        report(config, options)
    return 0


def report(config: GRPOConfig, options: OverlapOptions) -> None:
    """Prints the machine, both times, and their ratio."""
    mesh = make_mesh(options.devices)
    lm, params = load_moshi(config.checkpoint, precision=Precision.f32())
    mimi, mimi_params = load_mimi(config.checkpoint)
    programs = make_programs(config, mesh, lm, mimi)
    trainable, constants = programs.base(params)
    models = Models(constants, mesh.put(mimi_params), mesh.put(load_vad()))
    frame_s = mimi.config.frame_samples / mimi.config.sample_rate
    batch = next(group_batches(config.segments, data_config(config), groups=options.groups))
    latencies = {"at once": 0.0, "slow": options.latency_s}

    def epoch(latency_s: float) -> None:
        with ScoringPool(config.scoring_threads, waiting(latency_s)) as pool:
            run = Run(config, mesh, programs, models, pool, frame_s, load_monitors(config.run_dir))
            state = programs.init(trainable)
            experience, _, _ = roll_out(run, state, batch)
            *_, (last, _) = update_epoch(run, state, experience)
            jax.block_until_ready(last)

    work = {name: lambda s=s: epoch(s) for name, s in latencies.items()}
    samples = alternate(work, rounds=options.rounds, warmup=1)
    for name, value in describe_machine().items():
        print(f"{name:<12} {value}")
    for name, taken in samples.items():
        print(f"judge {name:<8} {taken.median_ms / 1e3:8.2f} s an epoch")
    ratio = samples["slow"].median_ms / samples["at once"].median_ms
    print(f"a latency of {options.latency_s} s makes the epoch {100 * (ratio - 1):+.1f} % longer")
