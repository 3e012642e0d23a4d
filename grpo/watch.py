"""What the monitors of `rewards` look at: rollouts without their rewards."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from grpo.score import agent_speech
from layers_jax.files import atomic_path
from rewards import Dialogue, Monitors, RolloutView, shift

_FILE = "monitors.json"


def group_views(
    probabilities: Float[np.ndarray, "G F"],
    text: Int[np.ndarray, "G T"],
    *,
    padding: Sequence[int],
    frames: tuple[int, int],
    num_samples: int,
    axis: str,
    labels: Mapping[str, Any],
    start_s: float,
    duration_s: float,
) -> list[RolloutView]:
    """The rollouts of one group.

    Args:
        probabilities: as `score_group`, like the arguments not described here.
        text: text tokens.
        padding: the tokens that say nothing.
        frames: first frame of the segment, and the one after its last.
        num_samples: see `score_group`.
        axis: see `score_group`.
        labels: see `score_group`.
        start_s: see `score_group`.
        duration_s: see `score_group`.
    """
    inside = text[:, frames[0] : frames[1]]
    shares = np.isin(inside, padding).mean(axis=1)
    views = []
    for row, share in zip(probabilities, shares, strict=True):
        agent = tuple(shift(agent_speech(row, num_samples), -start_s))
        views.append(
            RolloutView(
                dialogue=Dialogue.of_segment(duration_s=duration_s, agent=agent, labels=labels),
                response_from_s=response_from_s(axis, labels),
                pad_share=float(share),
            )
        )
    return views


def response_from_s(axis: str, labels: Mapping[str, Any]) -> float | None:
    """End of the turn that the model is to answer; None on axes where no response is due."""
    if axis == "turn":
        return labels.get("user_turn_end_s")
    interruption = labels.get("interruption")
    return None if axis != "interruption" or interruption is None else interruption[1]


def load_monitors(folder: Path) -> Monitors:
    """The monitors of a run, with the first epoch they saw if it is continued."""
    monitors = Monitors()
    if (folder / _FILE).exists():
        monitors.restore(json.loads((folder / _FILE).read_text()))
    return monitors


def keep_monitors(folder: Path, monitors: Monitors) -> None:
    """Keep the first epoch for when the run is continued."""
    with atomic_path(folder / _FILE) as path:
        path.write_text(json.dumps(monitors.state(), indent=1))
