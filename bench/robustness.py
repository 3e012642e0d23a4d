"""`bench robustness`: what a policy's rewards are worth when the user's audio is not clean."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from convert import load_moshi
from grpo import GRPOConfig
from grpo.evaluate import evaluate_conditions
from grpo.perturb import PERTURBATIONS, robustness_grid
from layers_jax import Precision, atomic_path

__all__ = ["RobustnessOptions", "main", "table"]


@dataclass(frozen=True, kw_only=True)
class RobustnessOptions:
    """Rewards of a checkpoint at fixed levels of noise, reverb, loss, ..., one level a line.

    The same segments with the same random draws under every condition; labels are those of the
    clean audio. In brackets: the change from clean audio.
    """

    checkpoint: Path
    """Folder as `moshi-jax train` takes it."""
    segments: Path
    """Written by `moshi-jax segments extract`."""
    against: Path | None = None
    """A second checkpoint of the same shape, rolled out with the same draws."""
    kinds: tuple[str, ...] = tuple(PERTURBATIONS)
    """Which perturbations."""
    axes: tuple[str, ...] = ("pause", "turn")
    """Axes the segments are drawn from."""
    groups: int = 32
    """Segments drawn, a multiple of the devices."""
    num_generations: int = 4
    """Rollouts a segment."""
    precision: Literal["bf16", "f32"] = "bf16"
    """Weights and arithmetic of the model."""
    seed: int = 0
    """Seed of the draws."""
    devices: int | None = None
    """Devices to use; all if not given."""
    json: Path | None = None
    """Write the numbers there too."""


def table(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """A line a condition, a column a reward of each policy, and its change from clean audio."""
    columns = sorted(
        {(policy, name) for by in results.values() for policy, own in by.items() for name in own}
    )
    names = [f"{policy} {name}" for policy, name in columns]
    width = max(len("condition"), *map(len, results))
    lines = ["  ".join([f"{'condition':<{width}}", *(f"{name:>18}" for name in names)])]
    clean = results["clean"]
    for condition, by in results.items():
        cells = []
        for policy, name in columns:
            value, base = by[policy].get(name), clean[policy].get(name)
            if value is None:
                cells.append("missing")
            elif condition == "clean" or base is None:
                cells.append(f"{value:.3f}")
            else:
                cells.append(f"{value:.3f} ({value - base:+.3f})")
        padded = [f"{cell:>{max(18, len(name))}}" for cell, name in zip(cells, names, strict=True)]
        lines.append("  ".join([f"{condition:<{width}}", *padded]))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates and prints the table; see `RobustnessOptions`.

    Raises:
        ValueError: an unknown kind, or as `grpo.train`.
    """
    options = tyro.cli(RobustnessOptions, args=argv, description=__doc__)
    config = GRPOConfig(
        checkpoint=options.checkpoint,
        segments=options.segments,
        run_dir=options.checkpoint,  # nothing is written
        axes=options.axes,
        num_generations=options.num_generations,
        precision=options.precision,
        seed=options.seed,
        devices=options.devices,
    )
    policies: dict[str, Any] = {options.checkpoint.name: None}
    if options.against is not None:
        precision = Precision.f32() if options.precision == "f32" else Precision.bf16()
        policies[options.against.name] = load_moshi(options.against, precision=precision)[1]
    grid = robustness_grid(options.kinds)
    results = evaluate_conditions(config, policies, grid, groups=options.groups)
    print(table(results))
    if options.json is not None:
        with atomic_path(options.json) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0
