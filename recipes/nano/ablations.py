"""The ablations of arXiv 2606.11167 (its Table 3) at nano scale, against the full recipe.

    python -m recipes.nano.ablations runs/nano-grpo

Each leaves one thing out of the recipe with seed 0, which `recipes.nano.seeds` runs. Figures go to
`recipes/nano/results/NAME.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import tyro

from grpo.segments import AXES
from layers_jax.command import run_command
from recipes.nano.runs import RunOptions, run_all

ABLATIONS: dict[str, dict[str, Any]] = {
    **{f"no-{axis}": {"drop_axis": (axis,)} for axis in AXES},
    "no-judge": {"no_judge": True},
    "no-kl": {"beta": 0.0},
    "speak-silence": {"action_space": "speak_silence"},
}
"""Name -> what is changed."""


@dataclass(frozen=True, kw_only=True)
class AblationOptions(RunOptions):
    """The recipe with one thing left out at a time."""

    only: tuple[str, ...] = tuple(ABLATIONS)
    """Which ones."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is missing; returns 0.

    Raises:
        ValueError: an ablation that is not known.
    """
    options = tyro.cli(AblationOptions, args=argv, description=__doc__)
    if unknown := [name for name in options.only if name not in ABLATIONS]:
        raise ValueError(f"no ablation {unknown[0]!r}, expected one of {', '.join(ABLATIONS)}")
    recipes = {name: replace(options.recipe, **ABLATIONS[name]) for name in options.only}
    run_all(options, recipes, "python -m recipes.nano.ablations WORK")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m recipes.nano.ablations", main))
