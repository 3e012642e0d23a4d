"""GRPO for interactivity, top to bottom (arXiv 2606.11167).

An epoch: draw segments -> G rollouts of each (a loop of the streaming step) -> decode -> hear ->
rewards -> advantages within each group -> old log-probs by the teacher-forced forward -> G updates,
each with one rollout of every group -> weights back to the rollouts.

Left out: the judge and the rewards of axes that have no rule in `rewards`; user audio before the
segment as context; parameters in shards (a replica fits a device); adapters; scoring while the
device works; several hosts. The old policy is fixed for an epoch, advantages are not rescaled over
the batch, and the KL is exact, so there is no estimator to choose.
"""

import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from convert import export_moshi, load_mimi, load_moshi
from grpo.advantages import group_advantages
from grpo.checkpoint import Checkpoints
from grpo.config import GRPOConfig
from grpo.data import DataConfig, GroupBatch, group_batches
from grpo.mesh import Mesh, make_mesh
from grpo.metrics import agreement, progress_line, reward_metrics
from grpo.policy import Constants, Minibatch
from grpo.programs import Programs, make_programs
from grpo.score import Rewards, score_group
from grpo.tracking import JsonlTracker, open_run, summarise
from grpo.trainable import Params, merge
from grpo.update import TrainState
from helium_jax import unstack_layers
from layers_jax import Precision
from rewards import REWARDS, load_vad

logger = logging.getLogger("grpo")


class TrainResult(NamedTuple):
    """What a finished run leaves."""

    params: Params  # host arrays, layers listed, as exported
    export: Path  # the PyTorch checkpoint folder
    metrics: Path  # a JSON line an epoch


class Experience(NamedTuple):
    """What N groups of G rollouts leave on the host."""

    streams: Int[np.ndarray, "N G K T"]
    decode_logprob: Float[np.ndarray, "N G T"]  # as drawn in the rollout
    rewards: list[Rewards]  # a group each


class Models(NamedTuple):
    """What an epoch reads besides the train state; on every device."""

    constants: Constants
    mimi: Params
    vad: Any


def train(config: GRPOConfig) -> TrainResult:
    """Run or continue a training run, and export its result as a PyTorch checkpoint.

    Raises:
        ValueError: the run folder belongs to another configuration, the devices do not divide the
            groups, or checkpoint and segments cannot be used.
        FileNotFoundError: checkpoint or segments are not there.
    """
    mesh = make_mesh(config.devices)
    if config.groups_per_epoch % mesh.size:
        raise ValueError(
            f"groups_per_epoch is {config.groups_per_epoch}, expected a multiple of the "
            f"{mesh.size} devices; change it or --devices"
        )
    data = group_batches(config.segments, data_config(config), groups=config.groups_per_epoch)
    precision = Precision.f32() if config.precision == "f32" else Precision.bf16()
    lm, params = load_moshi(config.checkpoint, precision=precision)
    mimi, mimi_params = load_mimi(config.checkpoint)
    run = open_run(config)

    programs = make_programs(config, mesh, lm, mimi)
    reference, frozen = programs.base(mesh.replicate(params))
    del params
    models = Models(
        Constants(frozen, reference), mesh.replicate(mimi_params), mesh.replicate(load_vad())
    )
    state: TrainState = programs.init(reference)
    frame_s = mimi.config.frame_samples / mimi.config.sample_rate

    with Checkpoints(run / "checkpoints") as checkpoints:
        first = 0
        if checkpoints.latest is not None:
            first, state, position = checkpoints.restore(state)
            data.set_state(position)
            logger.info("continuing %s after epoch %d", run, first)
        with JsonlTracker(run / "metrics.jsonl", first_epoch=first) as tracker:
            for epoch in range(first, config.epochs):
                batch = next(data)
                state, metrics = run_epoch(config, mesh, programs, models, state, batch, frame_s)
                tracker.log(epoch, metrics)
                logger.info("epoch %d of %d: %s", epoch + 1, config.epochs, progress_line(metrics))
                done = epoch + 1
                if done == config.epochs or done % config.checkpoint_every == 0:
                    checkpoints.save(done, state, data.get_state(), config.to_json())

    trained = jax.device_get(merge(unstack_layers(state.trainable), frozen))
    export = run / "export"
    if not export.exists():
        export_moshi(export, lm.config, trained, source=config.checkpoint, dtypes="float32")
        logger.info("exported to %s", export)
    return TrainResult(trained, export, run / "metrics.jsonl")


def run_epoch(
    config: GRPOConfig,
    mesh: Mesh,
    programs: Programs,
    models: Models,
    state: TrainState,
    batch: GroupBatch,
    frame_s: float,
) -> tuple[TrainState, dict[str, float | None]]:
    """One epoch: rollouts of every group, then G updates."""
    generations = config.num_generations

    # ---------------------------------------------------------------- rollouts, heard and scored
    started = time.perf_counter()
    weights = merge(programs.sync(state.trainable), models.constants.frozen)
    experience = collect(config, mesh, programs, models, weights, batch, frame_s)
    del weights
    rolled_out = time.perf_counter()

    # ---------------------------------------------------------------- advantages within each group
    advantages = np.stack(
        [
            group_advantages(
                np.stack(list(rewards.values())), [REWARDS[name].min_std for name in rewards]
            )
            for rewards in experience.rewards
        ]
    ).astype(np.float32)

    # ---------------------------------------------------------------- the policy before the updates
    length = experience.streams.shape[-1]
    frames = np.arange(length)
    mask = (frames >= batch.segment_start_frame[:, None]) & (frames < batch.num_frames[:, None])
    mask = np.repeat(mask[:, None], generations, axis=1)  # [N, G, T]
    rows = _per_device(mesh, experience.streams)
    old = programs.logprobs(
        state.trainable, models.constants.frozen, rows.reshape(mesh.size, -1, *rows.shape[3:])
    )
    old = np.asarray(old).reshape(experience.decode_logprob.shape)

    # ---------------------------------------------------------------- G updates, a rollout a group
    order = np.array([_update_order(config, int(index)) for index in batch.index])  # [N, G]
    whole = Minibatch(experience.streams, old, advantages, mask)
    updates = []
    for u in range(generations):
        chosen = (np.arange(len(order)), order[:, u])
        minibatch = Minibatch(*(_per_device(mesh, field[chosen]) for field in whole))
        state, metrics = programs.update(state, models.constants, minibatch)
        updates.append(metrics)
    updates = jax.tree.map(float, jax.device_get(updates))  # the host waits here, not above
    finished = time.perf_counter()

    spoken = generations * int(batch.num_frames.sum())
    return state, {
        **reward_metrics(config.axes, batch.axis, experience.rewards, advantages),
        **summarise(updates),
        **agreement(experience.decode_logprob, old, mask),
        "learning_rate": float(np.asarray(programs.learning_rate(state.step))),
        "bf16_visible_change": float(
            programs.visible_change(state.trainable, models.constants.reference)
        ),
        "rollout_frames_per_s": spoken / (rolled_out - started),
        "time/rollout_s": rolled_out - started,
        "time/update_s": finished - rolled_out,
    }


def collect(
    config: GRPOConfig,
    mesh: Mesh,
    programs: Programs,
    models: Models,
    weights: Params,
    batch: GroupBatch,
    frame_s: float,
) -> Experience:
    """Roll out every group, one a device at a time, and score what was said."""
    generations = config.num_generations
    row_ids = batch.index[:, None] * generations + np.arange(generations)  # unique in the run
    streams, logprobs, heard = [], [], []
    for wave in range(0, len(batch.axis), mesh.size):
        here = slice(wave, wave + mesh.size)
        trajectory, wave_streams = programs.rollout(
            weights,
            models.mimi,
            batch.pcm[here],
            batch.num_frames[here].astype(np.int32),
            row_ids[here].astype(np.int32),
        )
        heard.append(np.asarray(programs.hear(models.vad, trajectory.pcm)))
        streams.append(np.asarray(wave_streams))
        logprobs.append(np.asarray(trajectory.text_logprob))

    samples_16k = batch.pcm.shape[1] * 2 // 3
    rewards = [
        score_group(
            probabilities,
            num_samples=samples_16k,
            axis=axis,
            labels=labels,
            start_s=float(start) * frame_s,
            duration_s=float(duration_s),
        )
        for probabilities, axis, labels, start, duration_s in zip(
            np.concatenate(heard),
            batch.axis,
            batch.labels,
            batch.segment_start_frame,
            batch.segment_duration_s,
            strict=True,
        )
    ]
    return Experience(np.concatenate(streams), np.concatenate(logprobs), rewards)


def data_config(config: GRPOConfig) -> DataConfig:
    """What of the configuration decides which segments are drawn."""
    return DataConfig(
        axes=config.axes,
        prefix_silence_s=config.prefix_silence_s,
        bucket_frames=config.bucket_frames,
        seed=config.seed,
    )


def _per_device(mesh: Mesh, rows: np.ndarray) -> np.ndarray:
    """[N, ...] -> [D, N / D, ...]."""
    return rows.reshape(mesh.size, -1, *rows.shape[1:])


def _update_order(config: GRPOConfig, group: int) -> Int[np.ndarray, " G"]:
    """In which order a group's rollouts are used; `group` counts over the whole run."""
    return np.random.default_rng([config.seed, group]).permutation(config.num_generations)
