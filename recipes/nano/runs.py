"""Runs of GRPO on the nano checkpoint, one after another, their figures kept as JSON.

A run that is finished is not done again, one that was stopped goes on from its last checkpoint. All
are compared on the same held-out segments with the same draws.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from rich.console import Console
from tyro.conf import Positional

from bench import describe_machine
from grpo.heldout import SegmentScore
from grpo.tracking import log_progress
from layers_jax import atomic_path
from moshi_jax.demo import Clock, Experiment, Recipe, Result, prepare, table
from moshi_jax.stream import embedded_checkpoint

RESULTS = Path(__file__).parent / "results"
HELD_OUT_CONVERSATIONS = 96


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where runs work and what they are compared on."""

    work: Annotated[Positional[Path], tyro.conf.arg(metavar="WORK")]
    """Folder of the runs, to be continued from: segments, checkpoints, metrics."""
    results: Path = RESULTS
    """Where the figures go, a JSON file a run."""
    checkpoint: Path = field(default_factory=embedded_checkpoint)
    """Checkpoint folder that is trained."""
    recipe: Recipe = field(default_factory=Recipe)
    """What every run starts from."""
    per_axis: int = 60
    """Held-out segments of each axis."""
    rollouts: int = 4
    """Of each held-out segment."""
    devices: int = 2
    """Devices to train on."""


def run_all(options: RunOptions, recipes: Mapping[str, Recipe], command: str) -> None:
    """Do what is not done yet.

    Args:
        options: of all.
        recipes: by name of the run.
        command: that is kept with the figures.

    Raises:
        ValueError: a result is there that another checkpoint gave.
    """
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", options.devices)
    log_progress()
    console, fingerprint = Console(width=150), checkpoint_hash(options.checkpoint)
    base: list[SegmentScore] | None = None
    for name, recipe in recipes.items():
        target = options.results / f"{name}.json"
        if target.is_file():
            if (found := json.loads(target.read_text())["checkpoint"]) != fingerprint:
                raise ValueError(
                    f"{target} is of the checkpoint {found[:12]}, expected one of "
                    f"{fingerprint[:12]} ({options.checkpoint}); remove it to run anew"
                )
            console.print(f"{target} is there")
            continue
        clock = Clock()
        data = prepare(
            options.work / "data",
            seed=recipe.seed,
            train_conversations=recipe.train_conversations,
            held_out_conversations=HELD_OUT_CONVERSATIONS,
        )
        experiment = Experiment(
            checkpoint=options.checkpoint,
            data=data,
            devices=options.devices,
            per_axis=options.per_axis,
            rollouts=options.rollouts,
            scratch=options.work / "scratch",
        )
        clock.lap("segments")
        held_out = experiment.held_out()
        base = held_out.score(None) if base is None else base
        clock.lap("base")
        trained = experiment.train(recipe, options.work / name)
        clock.lap("train")
        tuned = held_out.score(trained.params)
        clock.lap("tuned")
        result = experiment.result(recipe, trained, base, tuned, clock.seconds)
        values = to_json(result, base, tuned)
        values |= {"command": command, "checkpoint": fingerprint, "machine": describe_machine()}
        options.results.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            temporary.write_text(json.dumps(values) + "\n", encoding="utf-8")
        console.print(table(result.axes, title=name), f"{name}: KL {result.kl:.3f} nats a frame")


def to_json(result: Result, base: list[SegmentScore], tuned: list[SegmentScore]) -> dict[str, Any]:
    """The result, and the mean of every segment: runs are compared with one another by them."""
    return {
        **result.to_dict(),
        "segments": [score.segment_id for score in base],
        "base": [_means(score) for score in base],
        "tuned": [_means(score) for score in tuned],
    }


def _means(score: SegmentScore) -> dict[str, float]:
    """Axis/reward -> mean over the rollouts that have it."""
    return {
        f"{score.axis}/{name}": round(float(np.nanmean(values)), 4)
        for name, values in score.rewards.items()
        if not np.isnan(values).all()
    }


def checkpoint_hash(folder: Path) -> str:
    """SHA-256 of the checkpoint's files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
