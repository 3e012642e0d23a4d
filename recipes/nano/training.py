"""What both stages of the codec's training share: the optimiser, and a run that can be resumed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from layers_jax.files import atomic_path

STATE_NAME = "training.npz"


class TrainState(NamedTuple):
    """Everything an update changes."""

    params: Any
    optimizer: Any


def make_optimizer(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with a warm-up and a cosine to a fiftieth of the rate; gradients clipped at norm 1.

    What these runs lack is not speed but rest: most of the gain comes while the rate falls.
    """
    rate = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, min(50, steps // 4), steps, end_value=0.02 * learning_rate
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b1=0.9, b2=0.999))


def save_state(path: Path, state: TrainState, step: int) -> None:
    """Writes everything that `load_state` needs to go on after `step` updates."""
    leaves = jax.tree.leaves(state)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, step=step, **{f"leaf{i:04}": np.asarray(x) for i, x in enumerate(leaves)})


def load_state(path: Path, like: TrainState) -> tuple[TrainState, int]:
    """The state and the number of updates behind it.

    Raises:
      ValueError: the file is of another model or optimiser.
    """
    expected, structure = jax.tree.flatten(like)
    with np.load(path) as stored:
        found = [stored[name] for name in sorted(stored.files) if name != "step"]
        step = int(stored["step"])
    shapes = [[tuple(np.shape(leaf)) for leaf in leaves] for leaves in (found, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{path} holds the state of another model ({len(found)} arrays, expected "
            f"{len(expected)} of this recipe's shapes); train into another folder"
        )
    leaves = [jax.numpy.asarray(leaf) for leaf in found]
    return jax.tree.unflatten(structure, leaves), step


class Progress:
    """Prints means of the last updates and stops a run that diverges.

    Args:
      every: updates between two lines.
    """

    def __init__(self, every: int = 50) -> None:
        self._every, self._recent = every, []
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._best = math.inf

    def add(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Counts one update.

        Raises:
          ValueError: the loss is not finite, or three times its best mean.
        """
        self._recent.append({name: float(value) for name, value in metrics.items()})
        loss = self._recent[-1]["loss"]
        if not math.isfinite(loss):
            raise ValueError(
                f"training diverged: loss {loss} in update {step}; go on from the last saved state "
                "with a lower --learning-rate"
            )
        if step % self._every:
            return
        means = {n: np.mean([m[n] for m in self._recent]) for n in self._recent[0]}
        if means["loss"] > 3 * self._best + 1:
            raise ValueError(
                f"training diverged: loss {means['loss']:.2f} at update {step}, it was "
                f"{self._best:.2f}; go on from the last saved state with a lower --learning-rate"
            )
        self._best = min(self._best, float(means["loss"]))
        shown = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        wall, cpu = time.monotonic() - self._wall, time.process_time() - self._cpu
        print(f"{wall:6.0f} s ({cpu:.0f} CPU)  {step}: {shown}", flush=True)
        self._recent = []


def run_updates(
    path: Path,
    state: TrainState,
    *,
    steps: int,
    save_every: int,
    update: Callable[[TrainState, int], tuple[TrainState, Mapping[str, Any]]],
    saved: Callable[[TrainState, int], None],
    stop_after_s: float | None = None,
) -> TrainState:
    """Updates from where `path` left off until `steps`; a killed run goes on with the same bits.

    Args:
      path: training state; read if it is there.
      state: the state before the first update.
      steps: updates in all.
      save_every: updates between two savings.
      update: (state, number of the update from 1) to the next state and its metrics, `loss` first.
        Takes all its randomness from the number.
      saved: called after each saving.
      stop_after_s: save and return after so many seconds, to be gone on with later.
    """
    done = 0
    if path.exists():
        state, done = load_state(path, state)
        print(f"going on after {done} updates", flush=True)
    progress, started = Progress(), time.monotonic()
    for step in range(done + 1, steps + 1):
        state, metrics = update(state, step)
        progress.add(step, metrics)
        late = stop_after_s is not None and time.monotonic() - started > stop_after_s
        if step % save_every == 0 or step == steps or late:
            save_state(path, state, step)
            saved(state, step)
        if late:
            print(f"stopped after {stop_after_s:.0f} s, {step} of {steps} updates", flush=True)
            break
    return state


def write_json(path: Path, values: Any) -> None:
    """A JSON file, complete or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
