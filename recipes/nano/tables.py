"""The tables of `docs/nano.md`, out of the committed figures.

    python -m recipes.nano.tables

writes them between the marks of the page. A test checks that they are there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

from grpo.bootstrap import Comparison, compare
from grpo.segments import AXES
from layers_jax import atomic_path
from layers_jax.command import run_command
from recipes.nano.ablations import ABLATIONS
from recipes.nano.runs import RESULTS
from recipes.nano.seeds import SeedOptions

PAGE = Path(__file__).parents[2] / "docs" / "nano.md"
BEGIN, END = "<!-- figures: python -m recipes.nano.tables -->", "<!-- end of figures -->"
FULL = "seed-0"
SIGNIFICANT = 0.05

REWARDS = {
    "pause": "pause/pause_handling",
    "turn": "turn/turn_taking",
    "backchannel": "backchannel/backchanneling",
    "interruption": "interruption/user_interruption",
}
JUDGE = ("turn/judge", "interruption/judge")


class Claim(NamedTuple):
    """What arXiv 2606.11167 reports of an ablation, in the sign of a reward of ours."""

    ablation: str
    measures: tuple[str, ...]
    shown_as: str
    paper: int  # +1: the reward is higher without, -1: lower
    said: str


CLAIMS = (
    Claim("no-pause", (REWARDS["pause"],), "pause", -1, "takeovers in pauses .42 to .74"),
    Claim("no-pause", (REWARDS["turn"],), "turn", +1, "latency down to .05 s"),
    Claim("no-turn", (REWARDS["turn"],), "turn", -1, "latency up to .30 s"),
    Claim("no-backchannel", (REWARDS["backchannel"],), "backchannel", -1, "JSD .79 to .83"),
    Claim("no-judge", JUDGE, "judge", -1, "worst content of all (GPT-4o 3.05)"),
)


def render(results: Path) -> str:
    """The tables of what is there.

    Raises:
        FileNotFoundError: not even the full recipe with seed 0.
    """
    runs = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    if FULL not in runs:
        raise FileNotFoundError(
            f"{results} has no {FULL}.json, expected what `python -m recipes.nano.seeds` writes"
        )
    seeds = {name: run for name, run in runs.items() if name.startswith("seed-")}
    ablations = {name: runs[name] for name in ABLATIONS if name in runs}
    parts = [_seeds(seeds), _changes({**seeds, **ablations})]
    if ablations:
        parts.append(_claims(runs))
    expected = [*(f"seed-{seed}" for seed in SeedOptions.seeds), *ABLATIONS]
    if missing := [name for name in expected if name not in runs]:
        parts.append(f"Not run: {', '.join(missing)}.")
    return "\n\n".join(parts)


def _seeds(runs: Mapping[str, Any]) -> str:
    """Base and tuned, seed by seed."""
    rows = []
    for name, run in runs.items():
        for found in run["axes"]:
            c = found["comparison"]
            rows.append(
                (
                    name.removeprefix("seed-"),
                    found["axis"],
                    found["reward"],
                    c["segments"],
                    _interval(c["before"]),
                    _interval(c["after"]),
                    _interval(c["change"], sign=True),
                    _p(c["p"]),
                )
            )
    head = ("seed", "axis", "reward", "n", "base", "tuned", "change", "p")
    return _table(head, rows)


def _changes(runs: Mapping[str, Any]) -> str:
    """Every run in one line: changes against the base, in bold where p < 0.05."""
    rows = []
    for name, run in runs.items():
        found = {(a["axis"], a["reward"]): a["comparison"] for a in run["axes"]}
        timing = [found[tuple(REWARDS[axis].split("/"))] for axis in AXES]
        changes = [_change(c) for c in (*timing, found["all", "judge"])]
        minutes = f"{run['seconds']['train'] / 60:.1f}"
        rows.append((name, *changes, f"{run['kl']:.3f}", run["updates"], minutes))
    head = ("run", *AXES, "judge", "KL, nats a frame", "updates", "minutes of training")
    return _table(head, rows)


def _claims(runs: Mapping[str, Any]) -> str:
    """Ablated against full, and whether the paper's direction is found."""
    rows = []
    for claim in CLAIMS:
        if claim.ablation not in runs:
            continue
        c = between(runs[FULL], runs[claim.ablation], claim.measures)
        rows.append(
            (
                claim.ablation,
                claim.shown_as,
                f"{c.before.mean:.3f}",
                f"{c.after.mean:.3f}",
                f"{c.change.mean:+.3f} [{c.change.low:+.3f}, {c.change.high:+.3f}]",
                _p(c.p),
                f"{'higher' if claim.paper > 0 else 'lower'} ({claim.said})",
                verdict(c, claim.paper),
            )
        )
    head = ("without", "reward", "full", "ablated", "change", "p", "the paper's", "agrees")
    return _table(head, rows)


def between(full: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str]) -> Comparison:
    """Two tuned models on the same held-out segments.

    Raises:
        ValueError: they were compared on different ones.
    """
    if full["segments"] != other["segments"]:
        raise ValueError("runs on different held-out segments, expected the same; run them anew")
    before, after, conversations = [], [], []
    for segment, one, two in zip(full["segments"], full["tuned"], other["tuned"], strict=True):
        for name in names:
            if name in one and name in two:
                before.append(one[name])
                after.append(two[name])
                conversations.append(segment.split("/")[0])
    return compare(np.array(before, float), np.array(after, float), conversations)


def verdict(c: Comparison, paper: int) -> str:
    """Whether a change has the sign it should have, if it is one."""
    if c.p >= SIGNIFICANT:
        return "not shown"
    return "yes" if np.sign(c.change.mean) == paper else "no"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _interval(estimate: Mapping[str, float], *, sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    low, high = f"{estimate['low']:{form}}", f"{estimate['high']:{form}}"
    return f"{estimate['mean']:{form}} [{low}, {high}]"


def _change(c: Mapping[str, Any]) -> str:
    text = f"{c['change']['mean']:+.3f}"
    return f"**{text}**" if c["p"] < SIGNIFICANT else text


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def with_tables(page: str, tables: str) -> str:
    """The page with the tables between its marks.

    Raises:
        ValueError: the marks are not there.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"the page has no {BEGIN!r} and {END!r}, expected one of each")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{rest.split(END)[1]}"


@dataclass(frozen=True)
class _Nothing:
    """There is nothing to choose."""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the tables; returns 0."""
    tyro.cli(_Nothing, args=argv, description=__doc__)
    page = with_tables(PAGE.read_text(encoding="utf-8"), render(RESULTS))
    with atomic_path(PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m recipes.nano.tables", main))
