"""A segment of each axis before and after training: to look at and to listen to."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from grpo.heldout import SegmentScore
from grpo.records import ManifestEntry, read_manifest
from grpo.samples import Sample
from grpo.segments import AXES, SAMPLE_RATE
from grpo.timeline import Lane, Timeline
from helium_jax import TextTokenizer
from layers_jax import atomic_path
from mimi_jax import write_audio
from moshi_jax.demo.experiment import Result
from rewards.intervals import shift

BASE, TUNED, USER = "#E69F00", "#009E73", "#0072B2"  # Okabe and Ito 2008


def choose(base: Sequence[SegmentScore], tuned: Sequence[SegmentScore]) -> dict[str, int]:
    """For each axis, the row of the segment that stands for it.

    The first rollouts are compared, since they are what is drawn. Of those that became better the
    median one is taken, of all if none did: neither the best nor a failure.
    """
    chosen = {}
    for axis in sorted({score.axis for score in base}, key=AXES.index):
        changes = [
            (_first(after) - _first(before), row)
            for row, (before, after) in enumerate(zip(base, tuned, strict=True))
            if before.axis == axis
        ]
        better = sorted(change for change in changes if change[0] > 0) or sorted(changes)
        chosen[axis] = better[len(better) // 2][1]
    return chosen


def _first(score: SegmentScore) -> float:
    return float(next(iter(score.rewards.values()))[0])  # the timing reward comes before the judge


def timelines(
    segments: Path, base: Sequence[SegmentScore], tuned: Sequence[SegmentScore]
) -> list[Timeline]:
    """User, base and tuned of an example of each axis.

    Args:
      segments: folder of the held-out segments.
      base: scores of the base.
      tuned: scores of the tuned model.
    """
    entries = {entry.id: entry for entry in read_manifest(segments)}
    return [
        _timeline(entries[base[row].segment_id], base[row], tuned[row])
        for row in choose(base, tuned).values()
    ]


def _timeline(entry: ManifestEntry, before: SegmentScore, after: SegmentScore) -> Timeline:
    segment = entry.segment
    lanes = [Lane(name="user", color=USER, ipus=segment.user_ipus)]
    for name, color, score in (("base", BASE, before), ("tuned", TUNED, after)):
        said = tuple(shift(score.agent, segment.start_s))
        lanes.append(Lane(name=name, color=color, ipus=_within(said, segment.start_s)))
    plain = Timeline.of_segment(entry)
    reward = next(iter(before.rewards))
    return replace(
        plain,
        title=f"{entry.segment.axis}: {_first(before):.2f} → {_first(after):.2f} ({reward})",
        start_s=segment.start_s,
        lanes=tuple(lanes),
    )


def _within(
    intervals: Iterable[tuple[float, float]], start_s: float
) -> tuple[tuple[float, float], ...]:
    return tuple((max(a, start_s), b) for a, b in intervals if b > start_s)


def save_picture(path: Path, result: Result, panels: Sequence[Timeline]) -> None:
    """One PNG: the examples, and below them the training curves.

    Args:
      path: ends in .png; complete or not there.
      result: of the run.
      panels: of `timelines`.

    Raises:
      ImportError: the extra `plot` is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "pictures: got no package 'matplotlib', expected it to be installed;"
            " run pip install 'moshi-jax[plot]'"
        ) from error
    names = list(result.curves)
    figure = Figure(figsize=(13, 2.1 * len(panels) + 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [2.1 * len(panels), 3.6]
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, panel in zip(
        above.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True
    ):
        panel.draw(axes)
    above.suptitle(
        "Held-out segments, one rollout each: the median of those that improved", fontsize=10
    )
    plots = below.subplots(1, len(names))
    for axes, name in zip(plots, names, strict=True):
        values = np.array([np.nan if v is None else v for v in result.curves[name]], float)
        epochs = np.arange(1, len(values) + 1)
        known = ~np.isnan(values)
        axes.plot(epochs[known], values[known], ".", color="#BBBBBB", markersize=4)
        axes.plot(epochs[known], _smooth(values[known]), color=TUNED)
        axes.set_title(name.removeprefix("rewards/").replace("/", "\n"), fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_xlabel("epoch", fontsize=7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


def _smooth(values: np.ndarray, width: int = 5) -> np.ndarray:
    """Mean of the values at most `width // 2` away."""
    half = width // 2
    return np.array(
        [values[max(0, n - half) : n + half + 1].mean() for n in range(len(values))], float
    )


def write_examples(
    folder: Path, name: str, samples: Iterable[Sample], tokenizer: TextTokenizer
) -> None:
    """`AXIS-NAME.wav`, user left and agent right, and `AXIS-NAME.txt` with the agent's words."""
    folder.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        stem = folder / f"{sample.axis}-{name}"
        write_audio(stem.with_suffix(".wav"), np.stack([sample.user, sample.agent]), SAMPLE_RATE)
        words = "".join(tokenizer.piece(int(t)) for t in sample.text if t >= 0).strip()
        with atomic_path(stem.with_suffix(".txt")) as temporary:
            temporary.write_text(f"{sample.segment_id}\n{words}\n", encoding="utf-8")
