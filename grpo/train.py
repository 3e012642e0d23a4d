"""GRPO for interactivity (arXiv 2606.11167): a run from where it is to the export.

Not in the paper and decided here: the old policy is fixed for an epoch; rollouts draw text from the
whole vocabulary, so the ratio is that of the distribution they were drawn from.
"""

import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

from convert import load_mimi, load_moshi
from grpo.adapters import add_adapters, with_adapters
from grpo.checkpoint import Checkpoints, Restored
from grpo.collect import Models, ScoringPool
from grpo.config import GRPOConfig
from grpo.data import DataConfig, GroupIterator, group_batches
from grpo.distributed import initialize_distributed
from grpo.epoch import Experience, Metrics, Run, epoch_metrics, roll_out, update_epoch
from grpo.exporting import export_trained
from grpo.interrupt import Preempted, StopNotice
from grpo.judge_gate import JudgeGate, open_judge_gate
from grpo.mesh import Mesh, make_mesh
from grpo.metrics import every_process, progress_line
from grpo.perturb import codec_trip
from grpo.programs import make_programs
from grpo.tracking import RunTracker, open_run, open_tracker
from grpo.trainable import Params, merge
from grpo.update import TrainState
from grpo.watch import keep_monitors, load_monitors
from layers_jax import Precision
from rewards import load_vad

logger = logging.getLogger("grpo")


class TrainResult(NamedTuple):
    """What a finished run leaves."""

    params: Params  # host arrays, layers listed, as exported
    export: Path  # the PyTorch checkpoint folder
    metrics: Path  # a JSON line an epoch


class Position(NamedTuple):
    """Where a run is: at the start of an epoch, or between two of its updates."""

    epoch: int
    data: dict[str, int]  # of the data iterator, before the epoch's batch is drawn
    experience: Experience | None = None  # of this process, once the epoch is rolled out
    measured: Metrics | None = None
    updates: list[dict[str, float]] | None = None  # metrics of the updates done


def train(config: GRPOConfig) -> TrainResult:
    """Run or continue a training run, and export its result as a PyTorch checkpoint.

    Raises:
        ValueError: the run folder belongs to another configuration, the devices do not divide the
            groups or the model, checkpoint or segments cannot be used, or gradients or rewards
            stayed unusable.
        FileNotFoundError: checkpoint or segments are not there.
        CheckpointError: the state cannot be written; earlier checkpoints are intact.
        Preempted: SIGTERM came; the state is saved.
    """
    config.check_judge()
    initialize_distributed(config.distributed)
    mesh = make_mesh(config.devices, mapping=config.mapping, shape=config.mesh_shape)
    if config.groups_per_epoch % mesh.size:
        raise ValueError(
            f"groups_per_epoch is {config.groups_per_epoch}, expected a multiple of the "
            f"{mesh.size} devices; change it or --devices"
        )
    mimi, mimi_params = load_mimi(config.checkpoint)
    data = group_batches(
        config.segments,
        data_config(config),
        groups=config.groups_per_epoch // jax.process_count(),
        host=jax.process_index(),
        num_hosts=jax.process_count(),
        codec=codec_trip(mimi, mimi_params) if config.perturb.needs_codec() else None,
    )
    precision = Precision.f32() if config.precision == "f32" else Precision.bf16()
    lm, params = load_moshi(config.checkpoint, precision=precision)
    if config.lora.rank is not None:
        lm = with_adapters(lm, config.lora)
        params = add_adapters(lm, params, config.seed)
    folder = open_run(config)

    programs = make_programs(config, mesh, lm, mimi)
    trainable, constants = programs.base(params)
    del params
    padding = lm.config.existing_text_padding_id, lm.config.existing_text_end_padding_id
    models = Models(constants, mesh.put(mimi_params), mesh.put(load_vad()), padding)
    state: TrainState = programs.init(trainable)
    del trainable
    frame_s = mimi.config.frame_samples / mimi.config.sample_rate

    with Checkpoints(folder / "checkpoints") as checkpoints:
        position = Position(0, data.get_state())
        if (restored := checkpoints.restore(state)) is not None:
            state, position = restored.state, _position(restored)
            logger.info("continuing %s at epoch %d", folder, position.epoch)
        with (
            open_judge_gate(config, folder) as gate,
            ScoringPool(config.scoring_threads, **gate.scoring) as pool,
            open_tracker(folder, config, first_epoch=position.epoch) as tracker,
            StopNotice() as notice,
        ):
            run = Run(config, mesh, programs, models, pool, frame_s, load_monitors(folder))
            state = _epochs(run, state, position, data, checkpoints, tracker, notice, gate)

    whole = mesh.whole(merge(state.trainable, constants.frozen))
    trained = export_trained(folder / "export", config.checkpoint, lm, whole)
    return TrainResult(trained, folder / "export", folder / "metrics.jsonl")


def _epochs(
    run: Run,
    state: TrainState,
    position: Position,
    data: GroupIterator,
    checkpoints: Checkpoints,
    tracker: RunTracker,
    notice: StopNotice,
    gate: JudgeGate,
) -> TrainState:
    """Every epoch from a position on."""
    config, generations = run.config, run.config.num_generations
    skips = Skips(config.max_skipped_updates)
    data.set_state(position.data)
    for epoch in range(position.epoch, config.epochs):
        start = data.get_state()
        batch = next(data)  # also where the epoch was left: the iterator moves on
        if epoch == position.epoch and position.experience is not None:
            experience, measured = position.experience, position.measured or {}
            updates: list[Any] = list(position.updates or [])
        else:
            if notice.at(epoch * generations):
                _stop(checkpoints, epoch * generations, state, Position(epoch, start))
            if (reason := gate.before_epoch()) is not None:
                _keep(checkpoints, epoch * generations, state, Position(epoch, start))
                raise ValueError(f"{reason}; saved after epoch {epoch}")
            wanted = config.samples.due(epoch)
            experience, measured, samples = roll_out(run, state, batch, samples=wanted)
            tracker.samples(epoch, samples)
            if jax.process_index() == 0:
                keep_monitors(config.run_dir, run.monitors)
            if config.monitors == "stop" and measured["monitor/stops"]:
                _keep(checkpoints, epoch * generations, state, Position(epoch, start))
                raise ValueError(
                    f"the rollouts of epoch {epoch} have left their bounds, see the log; saved "
                    "before its updates: look at them, or go on with --monitors alert"
                )
            updates = []
        skips.rewards(measured)
        started = time.perf_counter()
        rest = update_epoch(run, state, experience, first=len(updates))
        for state, metrics in rest:
            updates.append(metrics)
            step = epoch * generations + len(updates)
            if len(updates) < generations and notice.at(step):
                left = Position(epoch, start, experience, measured, _floats(run.mesh, updates))
                _stop(checkpoints, step, state, left)
        updates = _floats(run.mesh, updates)  # the host waits here, not above
        measured = {**measured, "time/update_s": time.perf_counter() - started}
        skips.updates(updates)
        metrics = epoch_metrics(run, state, measured, updates)
        tracker.log(epoch, metrics)
        logger.info("epoch %d of %d: %s", epoch + 1, config.epochs, progress_line(metrics))
        done = epoch + 1
        if done == config.epochs or done % config.checkpoint_every == 0:
            _save(checkpoints, done * generations, state, Position(done, data.get_state()))
    return state


class Skips:
    """Counts what could not be learned from, and ends the run when it does not stop."""

    def __init__(self, limit: int) -> None:
        self._limit, self._updates, self._epochs = limit, 0, 0

    def updates(self, updates: list[dict[str, float]]) -> None:
        """Updates of an epoch.

        Raises:
            ValueError: too many in a row had no finite gradient.
        """
        for metrics in updates:
            self._updates = self._updates + 1 if metrics["update/skipped"] else 0
            if self._updates >= self._limit:
                raise ValueError(
                    f"{self._updates} updates in a row had no finite gradient and were skipped; "
                    "the last checkpoint is intact: lower --optimizer.learning-rate or use "
                    "--precision f32, and continue from it"
                )

    def rewards(self, measured: Metrics) -> None:
        """Rewards of an epoch.

        Raises:
            ValueError: too many epochs in a row had no reward at all.
        """
        self._epochs = 0 if measured["rewards/valid_frac"] else self._epochs + 1
        if self._epochs >= self._limit:
            raise ValueError(
                f"{self._epochs} epochs in a row had no valid reward; the last checkpoint is "
                "intact: see the log for what failed, mend it, and continue from it"
            )


def _floats(mesh: Mesh, updates: list[Any]) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in mesh.fetch(one).items()} for one in updates]


def _stop(checkpoints: Checkpoints, step: int, state: TrainState, position: Position) -> None:
    """Save, and leave.

    Raises:
        Preempted: always.
    """
    _keep(checkpoints, step, state, position)
    raise Preempted(
        f"told to stop (SIGTERM): saved after {step} updates; run the same command to continue"
    )


def _keep(checkpoints: Checkpoints, step: int, state: TrainState, position: Position) -> None:
    if checkpoints.latest != step:
        _save(checkpoints, step, state, position)


def _save(checkpoints: Checkpoints, step: int, state: TrainState, position: Position) -> None:
    arrays = None
    if position.experience is not None:
        # Of all processes: another number of them may continue.
        arrays = dict(zip(Experience._fields, every_process(*position.experience), strict=True))
    progress = position._replace(experience=None)._asdict()
    checkpoints.save(step, state, progress, arrays)


def _position(restored: Restored) -> Position:
    position = Position(**restored.progress)
    if restored.arrays:
        whole = Experience(**restored.arrays)
        return position._replace(experience=whole.of_process())
    return position


def data_config(config: GRPOConfig) -> DataConfig:
    """What of the configuration decides which segments are drawn."""
    return DataConfig(
        axes=config.trained_axes,
        prefix_silence_s=config.prefix_silence_s,
        context_probability=0.0 if config.no_context else config.context.probability,
        context_max_s=config.context.max_s,
        context_ramp_steps=1 if config.no_context_schedule else config.epochs,
        perturb=config.perturb,
        bucket_frames=config.bucket_frames,
        seed=config.seed,
    )
