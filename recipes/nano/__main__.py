"""The whole chain from the recordings to a tuned model, with one seed.

    python -m recipes.nano --seed 1 RUNS/

Every stage is a command of its own (`recipes/nano/README.md`); here they run one after another,
each in its own process. One that is finished is not done again, one that was stopped goes on. What
each took is kept in `RUNS/times.json`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro
from tyro.conf import Positional

from layers_jax import atomic_path
from layers_jax.command import run_command

NEEDED_BYTES = 6 * 2**30
"""Conversations as audio are most of it."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """What is made, and where."""

    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="RUNS")]
    """Gets a folder for each stage, and times.json."""
    seed: int = 0
    """Of every stage."""
    until: str | None = None
    """The last stage; all of them if none."""


class Stage(NamedTuple):
    """A command of this package."""

    name: str
    module: str
    arguments: tuple[str, ...]


def stages(chain: Chain) -> list[Stage]:
    """All stages in order, each given what those before it leave."""
    codec, lm, seed = chain.folder / "codec", chain.folder / "lm", str(chain.seed)
    checkpoint = lm / "run" / "export"
    grpo = ("--checkpoint", str(checkpoint), "--results", str(chain.folder / "results"))
    return [
        Stage("codec", "codec", (str(codec), "--seed", seed)),
        Stage("decoder", "decoder", (str(codec), str(chain.folder / "decoder"), "--seed", seed)),
        Stage("lm", "language_model", (str(chain.folder / "decoder"), str(lm), "--seed", seed)),
        Stage("answers", "answers", (str(checkpoint),)),
        Stage("grpo", "seeds", (str(chain.folder / "grpo"), "--seeds", seed, *grpo)),
    ]


def run(chain: Chain) -> dict[str, float]:
    """Runs what is missing; the seconds of every stage.

    Raises:
      ValueError: a stage failed, an unknown one is asked for, or the disk is too full.
    """
    all_stages = stages(chain)
    names = [stage.name for stage in all_stages]
    if chain.until is not None and chain.until not in names:
        raise ValueError(f"until: got {chain.until!r}, expected one of {', '.join(names)}")
    chain.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(chain.folder).free
    if free < NEEDED_BYTES:
        raise ValueError(
            f"{chain.folder}: got {free / 2**30:.1f} GB of free space, expected "
            f"{NEEDED_BYTES / 2**30:.0f}; choose another disk"
        )
    record = chain.folder / "times.json"
    seconds: dict[str, float] = json.loads(record.read_text()) if record.is_file() else {}
    for stage in all_stages:
        if stage.name not in seconds:
            began = time.monotonic()
            command = [sys.executable, "-m", f"recipes.nano.{stage.module}", *stage.arguments]
            print(f"{stage.name}: {' '.join(command[1:])}", flush=True)
            if (code := subprocess.run(command, check=False).returncode) != 0:
                raise ValueError(
                    f"stage {stage.name} ended with exit code {code}, expected 0 (its reason "
                    "stands above); mend that and run the same command to go on"
                )
            seconds[stage.name] = round(time.monotonic() - began, 1)
            with atomic_path(record) as temporary:
                temporary.write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")
        if stage.name == chain.until:
            break
    return seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the chain with the options given by flags; returns 0."""
    seconds = run(tyro.cli(Chain, args=argv, description=__doc__, prog="python -m recipes.nano"))
    for name, spent in seconds.items():
        print(f"{name:10} {spent:8.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m recipes.nano", main))
