"""A segment as a picture: who speaks when, what is labelled, what a model said, what it earned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

from grpo.records import ManifestEntry, SegmentRecord
from grpo.segments import SAMPLE_RATE
from layers_jax import atomic_path
from rewards import Dialogue, score
from rewards.intervals import Interval, shift, utterances

# Told apart by readers who do not see all colours (Okabe and Ito 2008).
_USER, _AGENT, _MODEL, _LABEL = "#0072B2", "#E69F00", "#009E73", "#CC3311"
_QUIET, _INK = "#F1F1F1", "#333333"
_LANE, _BAR, _WAVE = 1.0, 0.16, 0.25  # heights, in lanes
_POINTS = 1500  # of a waveform's envelope
_PANEL_INCHES = (12.0, 1.0, 0.62)  # width; height without lanes, and of each lane


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One voice.

    Attributes:
        name: as written beside it.
        color: of its speech.
        ipus: seconds in the recording.
        pcm: int16 or float audio from the picture's left edge on, if it is at hand.
    """

    name: str
    color: str
    ipus: tuple[Interval, ...]
    pcm: Num[np.ndarray, " S"] | None = None


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """What is drawn of one segment; all times are seconds in the recording.

    Attributes:
        title: first words of the line above.
        start_s: left edge; the context before the window is shown, paler.
        window: the segment.
        lanes: from top to bottom.
        labels: of the segment.
        rewards: of the generated speech; None = missing.
    """

    title: str
    start_s: float
    window: Interval
    lanes: tuple[Lane, ...]
    labels: Mapping[str, Any]
    rewards: Mapping[str, float | None] = field(default_factory=dict)

    @classmethod
    def of_segment(
        cls,
        entry: ManifestEntry,
        record: SegmentRecord | None = None,
        generated: Dialogue | None = None,
    ) -> Timeline:
        """The picture of a stored segment.

        Args:
            entry: of the manifest.
            record: its audio, drawn as waveforms.
            generated: what a model said in the agent's place, seconds from the segment's start;
                its rewards are computed.
        """
        segment = entry.segment
        user_pcm = agent_pcm = None
        if record is not None:
            user_pcm, agent_pcm = record.user, record.agent
        lanes = [
            Lane(name="user", color=_USER, ipus=segment.user_ipus, pcm=user_pcm),
            Lane(name="agent", color=_AGENT, ipus=segment.agent_ipus, pcm=agent_pcm),
        ]
        rewards: Mapping[str, float | None] = {}
        if generated is not None:
            said = tuple(shift(generated.agent, segment.start_s))
            lanes.append(Lane(name="model", color=_MODEL, ipus=said))
            rewards = score(generated, segment.axis)
        return cls(
            title=f"{segment.axis}   {segment.conversation}   user on channel {segment.x_channel}",
            start_s=segment.start_s - entry.n_context_samples / SAMPLE_RATE,
            window=(segment.start_s, segment.end_s),
            lanes=tuple(lanes),
            labels=segment.labels,
            rewards=rewards,
        )

    def draw(self, axes: Any) -> None:
        """Draws into matplotlib axes."""
        start_s, end_s = self.window
        axes.set_xlim(self.start_s, end_s + 0.02 * (end_s - self.start_s))
        axes.set_ylim(len(self.lanes) * _LANE, -0.35)
        if self.start_s < start_s:
            axes.axvspan(self.start_s, start_s, color=_QUIET, zorder=0)
            axes.text(
                self.start_s, -0.08, " context", color="#888888", fontsize=8, va="bottom", ha="left"
            )
        for edge in self.window:
            axes.axvline(edge, color=_INK, linewidth=1.0, zorder=4)
        for number, lane in enumerate(self.lanes):
            self._draw_lane(axes, lane, number * _LANE)
        self._draw_labels(axes)
        axes.set_yticks([(n + 0.5) * _LANE for n in range(len(self.lanes))])
        axes.set_yticklabels([lane.name for lane in self.lanes])
        for tick, lane in zip(axes.get_yticklabels(), self.lanes, strict=True):
            tick.set_color(lane.color)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=8)
        for side in ("top", "left", "right"):
            axes.spines[side].set_visible(False)
        axes.set_title(self.title, loc="left", fontsize=10, color=_INK)
        axes.set_title(self._rewards_text(), loc="right", fontsize=10, color=_MODEL)

    def _draw_lane(self, axes: Any, lane: Lane, top: float) -> None:
        axes.axhline(top + _LANE, color="#DDDDDD", linewidth=0.6, zorder=1)
        middle = top + 0.36
        if lane.pcm is not None and len(lane.pcm):
            time_s, low, high = envelope(lane.pcm, self.start_s)
            axes.fill_between(
                time_s,
                middle - high * _WAVE,
                middle - low * _WAVE,
                color=lane.color,
                alpha=0.45,
                linewidth=0,
                zorder=2,
            )
        low_bar = top + (0.68 if lane.pcm is not None else 0.4)
        for start, end in utterances(lane.ipus):
            axes.plot(
                [start, start, end, end],
                [low_bar + 0.1, low_bar + 0.22, low_bar + 0.22, low_bar + 0.1],
                color=lane.color,
                linewidth=0.9,
                zorder=3,
                solid_joinstyle="miter",
            )
        spans = [(start, end - start) for start, end in lane.ipus]
        axes.broken_barh(spans, (low_bar, _BAR), facecolors=lane.color, edgecolors="none", zorder=3)

    def _draw_labels(self, axes: Any) -> None:
        for name, value in self.labels.items():
            if isinstance(value, int | float):
                axes.axvline(value, color=_LABEL, linestyle=(0, (4, 2)), linewidth=1.4, zorder=5)
                self._name(axes, name, value)
                continue
            events = value if value and isinstance(value[0], Sequence) else [value]
            for number, event in enumerate(events):
                if event:
                    axes.axvspan(*event, color=_LABEL, alpha=0.13, linewidth=0, zorder=1)
                    for edge in event:
                        axes.axvline(edge, color=_LABEL, linewidth=0.7, alpha=0.6, zorder=2)
                    if number == 0:
                        self._name(axes, name, event[0])

    def _name(self, axes: Any, name: str, time_s: float) -> None:
        text = name.removesuffix("_s").replace("_", " ")
        # Left of the mark when there is no room to its right.
        late = time_s > self.start_s + 0.85 * (self.window[1] - self.start_s)
        axes.text(
            time_s,
            -0.08,
            f"{text} " if late else f" {text}",
            color=_LABEL,
            fontsize=8,
            va="bottom",
            ha="right" if late else "left",
        )

    def _rewards_text(self) -> str:
        return "   ".join(
            f"{name} {'missing' if value is None else f'{value:.2f}'}"
            for name, value in self.rewards.items()
        )


def envelope(
    pcm: Num[np.ndarray, " S"], start_s: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, minima and maxima of a waveform at 24 kHz, scaled to its loudest sample."""
    step = max(1, len(pcm) // _POINTS)
    blocks = pcm[: len(pcm) // step * step].reshape(-1, step).astype(np.float32)
    blocks /= max(1e-9, float(np.abs(blocks).max()))
    time_s = start_s + (np.arange(len(blocks)) + 0.5) * step / SAMPLE_RATE
    return time_s, blocks.min(axis=1), blocks.max(axis=1)


def save_png(path: Path, timelines: Sequence[Timeline], *, dpi: int = 110) -> None:
    """Writes one panel for each segment, one below the other.

    Args:
        path: ends in .png; complete or not there.
        timelines: at least one.
        dpi: points an inch; a panel is 12 inches wide.

    Raises:
        ValueError: nothing to draw, or another suffix.
        ImportError: the extra `plot` is not installed.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(
            f"cannot draw {path}: got suffix {path.suffix!r}, expected .png; rename it"
        )
    if not timelines:
        raise ValueError(f"cannot draw {path}: got no segment, expected at least one")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "pictures: got no package 'matplotlib', expected it to be installed;"
            " run pip install 'moshi-jax[plot]'"
        ) from error
    width, base, lane = _PANEL_INCHES
    heights = [base + lane * len(timeline.lanes) for timeline in timelines]
    # Without pyplot there is no global state, and nothing asks for a display.
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(timelines), 1, squeeze=False, height_ratios=heights)
    for panel, timeline in zip(panels[:, 0], timelines, strict=True):
        timeline.draw(panel)
    panels[-1, 0].set_xlabel(
        "seconds in the recording   (bar: speech   bracket: utterance   red: label)", fontsize=9
    )
    with atomic_path(path) as temporary:
        # Without the software's version the same picture is the same bytes.
        figure.savefig(temporary, dpi=dpi, metadata={"Software": None})
