"""`moshi-jax train report RUN`: the curves of a run on one page that needs nothing else to open."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import tyro

from grpo.tracking import read_metrics
from layers_jax import atomic_path

WIDTH, HEIGHT, MARGIN = 360, 150, 34
GROUPS = {
    "Rewards": ("rewards/",),
    "Advantages": ("advantage/",),
    "Policy": ("kl", "entropy", "ppo_kl", "pg_clipfrac", "is_ratio/", "loss"),
    "Optimizer": ("grad_norm", "learning_rate", "update/", "bf16_visible_change"),
    "Rollouts and updates agree": ("sampler_trainer/",),
    "Time": ("time/", "rollout_frames_per_s"),
}
"""Heading -> how the metrics below it begin; the rest come last."""

STYLE = """
body { font: 14px system-ui, sans-serif; margin: 2em; color: #222; max-width: 1200px }
figure { display: inline-block; margin: 0 1em 1em 0 } figcaption { font-size: 12px }
svg { background: #fafafa; border: 1px solid #ddd } polyline { fill: none; stroke: #1f5fa8 }
circle { fill: #1f5fa8 } text { font-size: 10px; fill: #666 } pre { font-size: 11px }
"""


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write the curves of a run as one HTML page."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder of `moshi-jax train`."""
    output: Path | None = None
    """The page; RUN/report.html if none."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `ReportOptions`.

    Raises:
        FileNotFoundError: the folder holds no metrics.
        ValueError: there is no epoch in them.
    """
    options = tyro.cli(ReportOptions, args=argv, prog="moshi-jax train report")
    target = options.output or options.run / "report.html"
    page = render(options.run)
    with atomic_path(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"wrote {target}")
    return 0


def render(run: Path) -> str:
    """The page of a run folder.

    Raises:
        FileNotFoundError: the folder holds no metrics.
        ValueError: there is no epoch in them.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{run} holds no metrics.jsonl, expected a run of moshi-jax train")
    records = read_metrics(path)
    if not records:
        raise ValueError(f"{path} holds no epoch yet; come back after the first")
    names = list(dict.fromkeys(name for record in records for name in record if name != "epoch"))
    sections, shown = [], set()
    for heading, starts in GROUPS.items():
        own = [name for name in names if name.startswith(starts)]
        shown.update(own)
        sections.append(_section(heading, own, records))
    sections.append(_section("Others", [name for name in names if name not in shown], records))
    config = run / "config.json"
    settings = config.read_text(encoding="utf-8") if config.is_file() else ""
    title = html.escape(run.resolve().name)
    return (
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
        f"<h1>{title}</h1><p>{len(records)} epochs</p>{''.join(sections)}"
        f"<details><summary>config.json</summary><pre>{html.escape(settings)}</pre></details>\n"
    )


def _section(heading: str, names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> str:
    figures = [_figure(name, records) for name in names]
    return f"<h2>{heading}</h2>{''.join(figures)}" if figures else ""


def _figure(name: str, records: Sequence[Mapping[str, Any]]) -> str:
    """One curve; it has a gap where a value is missing."""
    points = [(record["epoch"], record.get(name)) for record in records]
    known = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
    caption = f"<figcaption>{html.escape(name)}</figcaption>"
    if not known:
        return f"<figure>{caption}<p>never there</p></figure>"
    first, last = points[0][0], points[-1][0]
    low, high = min(y for _, y in known), max(y for _, y in known)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        up = (y - low) / (high - low) if high > low else 0.5
        return (
            MARGIN + across * (WIDTH - 2 * MARGIN),
            HEIGHT - MARGIN / 2 - up * (HEIGHT - MARGIN),
        )

    parts, line = [], [known[0]]
    for before, after in pairwise(known):
        if after[0] - before[0] > 1:
            parts.append(line)
            line = []
        line.append(after)
    parts.append(line)
    drawn = [
        f'<circle cx="{place(*part[0])[0]:.1f}" cy="{place(*part[0])[1]:.1f}" r="2"/>'
        if len(part) == 1
        else '<polyline points="{}"/>'.format(
            " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in part))
        )
        for part in parts
    ]
    labels = (
        f'<text x="2" y="12">{high:.4g}</text><text x="2" y="{HEIGHT - 4}">{low:.4g}</text>'
        f'<text x="{WIDTH - 70}" y="12">last {known[-1][1]:.4g}</text>'
    )
    return (
        f'<figure>{caption}<svg width="{WIDTH}" height="{HEIGHT}">{labels}{"".join(drawn)}</svg>'
        "</figure>"
    )
