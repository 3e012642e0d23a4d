"""GRPO on the nano checkpoint with several seeds: does the effect hold?

    python -m recipes.nano.seeds runs/nano-grpo

A seed is that of the training conversations, of the draws and of the rollouts. The held-out
segments are the same for all. Figures go to `recipes/nano/results/seed-N.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import tyro

from layers_jax.command import run_command
from recipes.nano.runs import RunOptions, run_all


@dataclass(frozen=True, kw_only=True)
class SeedOptions(RunOptions):
    """GRPO with several seeds."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Of training."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is missing; returns 0."""
    options = tyro.cli(SeedOptions, args=argv, description=__doc__)
    recipes = {f"seed-{seed}": replace(options.recipe, seed=seed) for seed in options.seeds}
    run_all(options, recipes, "python -m recipes.nano.seeds WORK")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m recipes.nano.seeds", main))
