"""One epoch: rollouts of every group, advantages within each, then G updates.

    weights to the rollouts -> G rollouts of each group -> (heard, scored) -> old log-probs by the
    teacher-forced forward -> advantages -> G updates, each with one rollout of every group

Rewards are waited for only when the old log-probs are done. An epoch can be left between two
updates: `Experience` and `Measured` are all that it then has to remember.
"""

import logging
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from grpo.advantages import group_advantages
from grpo.collect import Models, Rollouts, ScoringPool, collect
from grpo.config import GRPOConfig
from grpo.data import GroupBatch
from grpo.mesh import Mesh
from grpo.metrics import agreement, every_process, reward_metrics
from grpo.policy import Constants, Minibatch
from grpo.programs import Programs
from grpo.samples import Sample
from grpo.score import Rewards
from grpo.tracking import summarise
from grpo.trainable import TRAINABLE, Params
from grpo.update import TrainState
from rewards import REWARDS, Monitors, statistics_table

logger = logging.getLogger("grpo")

Metrics = dict[str, float | None]


class Experience(NamedTuple):
    """N groups of G rollouts to learn from: all groups of the run's epoch, or one process's."""

    index: Int[np.ndarray, " N"]  # numbers of the groups in the run
    streams: Int[np.ndarray, "N G K T"]
    old_logprob: Float[np.ndarray, "N G T"]
    advantage: Float[np.ndarray, "N G"]
    mask: Bool[np.ndarray, "N T"]

    def of_process(self) -> "Experience":
        """The groups that this process updates with: those whose number is its own, modulo all."""
        mine = self.index % jax.process_count() == jax.process_index()
        return Experience(*(field[mine] for field in self))


class Run(NamedTuple):
    """What every epoch of a run shares."""

    config: GRPOConfig
    mesh: Mesh
    programs: Programs
    models: Models
    pool: ScoringPool
    frame_s: float
    monitors: Monitors


def roll_out(
    run: Run, state: TrainState, batch: GroupBatch, *, samples: int = 0
) -> tuple[Experience, Metrics, list[Sample]]:
    """The first half of an epoch: this process's experience, and what was measured of all."""
    config, mesh, programs = run.config, run.mesh, run.programs
    constants = run.models.constants
    started = time.perf_counter()
    weights = decoding_weights(programs, state, constants)
    rollouts = collect(
        config, mesh, programs, run.models, run.pool, weights, batch, run.frame_s, samples=samples
    )
    del weights
    rolled_out = time.perf_counter()

    rows = _per_device(mesh, rollouts.streams)
    rows = rows.reshape(mesh.local_size, -1, *rows.shape[3:])
    old, of_text = (
        logprob.reshape(rollouts.decode_logprob.shape)
        for logprob in mesh.fetch(programs.logprobs(state, constants.frozen, rows))
    )
    forwarded = time.perf_counter()

    rewards = rollouts.wait()
    advantage = np.stack([rollout_advantages(config, group) for group in rewards]).astype(
        np.float32
    )
    heard = time.perf_counter()
    experience = Experience(rollouts.index, rollouts.streams, old, advantage, rollouts.mask)
    return (
        experience,
        {
            **reward_metrics(
                config.trained_axes,
                rollouts.axis,
                rewards,
                advantage,
                judged=config.judge.kind != "none",
            ),
            **_watch(run, rollouts),
            **agreement(rollouts.decode_logprob, of_text, rollouts.mask),
            "rollout_frames_per_s": _frames(config, rollouts) / (rolled_out - started),
            "time/rollout_s": rolled_out - started,
            "time/logprobs_s": forwarded - rolled_out,
            "time/reward_wait_s": heard - forwarded,
        },
        rollouts.samples,
    )


def _watch(run: Run, rollouts: Rollouts) -> Metrics:
    """Means of what the monitors look at; what has left its bounds is said."""
    (table,) = every_process(statistics_table(rollouts.views))
    means, findings = run.monitors.check(table)
    for finding in findings:
        logger.warning("%s", finding)
    stops = [finding for finding in findings if finding.level == "stop"]
    return {
        **{f"monitor/{name}": mean.value for name, mean in means.items()},
        "monitor/stops": float(len(stops)),
    }


def decoding_weights(programs: Programs, state: TrainState, constants: Constants) -> Params:
    """The model as rollouts want it: what the text reads, from the train state, and the rest."""
    rest = {name: part for name, part in constants.frozen.items() if name not in TRAINABLE}
    return {**rest, **programs.sync(state, constants.frozen)}


def update_epoch(
    run: Run, state: TrainState, experience: Experience, first: int = 0
) -> Iterator[tuple[TrainState, dict[str, jax.Array]]]:
    """The second half: G updates, each with one rollout of every group.

    Args:
        run: of the epoch.
        state: donated.
        experience: of this process.
        first: updates done already.

    Yields:
        State and metrics after each update; the devices may still be working on them.
    """
    order = np.array([_update_order(run.config, int(index)) for index in experience.index])
    groups = np.arange(len(order))
    for u in range(first, run.config.num_generations):
        chosen = (groups, order[:, u])
        minibatch = Minibatch(
            streams=experience.streams[chosen],
            old_logprob=experience.old_logprob[chosen],
            advantage=experience.advantage[chosen],
            mask=experience.mask,
        )
        parts = Minibatch(*(_per_device(run.mesh, field) for field in minibatch))
        state, metrics = run.programs.update(state, run.models.constants, parts)
        yield state, metrics


def epoch_metrics(
    run: Run, state: TrainState, measured: Metrics, updates: list[dict[str, float]]
) -> Metrics:
    """What an epoch says about itself."""
    programs = run.programs
    reference = run.models.constants.reference
    # Adapters stand beside weights that do not change: nothing of them is lost by rounding.
    visible = programs.visible_change(state.trainable, reference) if reference else None
    return {
        **measured,
        **summarise(updates),
        "learning_rate": float(np.asarray(programs.learning_rate(run.mesh.fetch(state.step)))),
        "bf16_visible_change": None if visible is None else float(run.mesh.fetch(visible)),
    }


def rollout_advantages(config: GRPOConfig, rewards: Rewards) -> Float[np.ndarray, " G"]:
    """Advantages of the rollouts of one group, as the run is configured."""
    options = config.advantage
    advantages = group_advantages(
        np.stack(list(rewards.values())),
        [REWARDS[name].min_std if name in REWARDS else 0.0 for name in rewards],  # a judge: 0
        weights=[options.weights.get(name, 1.0) for name in rewards],
        estimator=options.estimator,
    )
    limit = options.clip
    return advantages if limit is None else np.clip(advantages, -limit, limit)


def _frames(config: GRPOConfig, rollouts: Rollouts) -> int:
    (frames,) = every_process(rollouts.frames)
    return config.num_generations * int(frames.sum())


def _per_device(mesh: Mesh, rows: np.ndarray) -> Any:
    """[N, ...] -> [D, N / D, ...]."""
    return rows.reshape(mesh.local_size, -1, *rows.shape[1:])


def _update_order(config: GRPOConfig, group: int) -> Int[np.ndarray, " G"]:
    """In which order a group's rollouts are used; `group` counts over the whole run."""
    return np.random.default_rng([config.seed, group]).permutation(config.num_generations)
