"""Supervised training, from where a run is to the export."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from convert import load_mimi, load_moshi, read_configs
from grpo.adapters import add_adapters, with_adapters
from grpo.checkpoint import Checkpoints
from grpo.distributed import initialize_distributed
from grpo.exporting import export_trained
from grpo.interrupt import Preempted, StopNotice
from grpo.mesh import Mesh, make_mesh
from grpo.tracking import JsonlTracker, RunTracker, open_run, open_services, summarise
from grpo.trainable import merge
from grpo.update import TrainState
from helium_jax import Moshi
from layers_jax import Precision
from layers_jax.functional import Params
from moshi_jax.pretrain.config import FREE_TO_CHANGE, PretrainConfig
from moshi_jax.pretrain.cuts import eval_batches, train_batches
from moshi_jax.pretrain.encode import format_of
from moshi_jax.pretrain.programs import Programs, make_programs
from moshi_jax.pretrain.tokens import TokenFolder, read_folder
from moshi_jax.pretrain.user_head import add_user_head, drop_user_head, with_user_head

__all__ = ["LOGGER", "PretrainResult", "pretrain"]

LOGGER = "moshi_jax.pretrain"
logger = logging.getLogger(LOGGER)


class PretrainResult(NamedTuple):
    """What a finished run leaves."""

    params: Params  # host arrays, layers listed, as exported
    metrics: dict[str, float | None]  # of the last line of metrics.jsonl


class Position(NamedTuple):
    """Where a run is, beside its train state."""

    pending: Sequence[dict[str, float]] = ()  # metrics of updates that no line has told yet
    first_loss: float | None = None  # of the first line
    skipped: int = 0  # updates in a row, the last ones, that had no finite gradient


class _Run(NamedTuple):
    """What all updates share."""

    config: PretrainConfig
    mesh: Mesh
    programs: Programs
    frozen: Params
    held_out: TokenFolder | None


def pretrain(config: PretrainConfig) -> PretrainResult:
    """Run or continue a supervised run, and export its result as a PyTorch checkpoint.

    Raises:
        ValueError: settings do not fit the run folder, the devices, the data or the model, or the
            loss diverged.
        FileNotFoundError: checkpoint or data are not there.
        ConversionError: the checkpoint cannot be used.
        CheckpointError: the state cannot be written; earlier checkpoints are intact.
        Preempted: SIGTERM came; the state is saved.
    """
    initialize_distributed(config.distributed)
    mesh = make_mesh(config.devices, mapping=config.mapping, shape=config.mesh_shape)
    if config.batch % mesh.size:
        raise ValueError(
            f"batch is {config.batch}, expected a multiple of the {mesh.size} devices; change it "
            "or --devices"
        )
    data = _open_data(config)
    precision = Precision.f32() if config.precision == "f32" else Precision.bf16()
    lm, params = load_moshi(config.checkpoint, precision=precision)
    if config.user_weight:
        lm = with_user_head(lm)
        params = add_user_head(lm, params, config.seed)
    if config.lora.rank is not None:
        lm = with_adapters(lm, config.lora)
        params = add_adapters(lm, params, config.seed)
    programs = make_programs(config, mesh, lm)
    folder = open_run(config, FREE_TO_CHANGE)
    trainable, frozen = programs.base(params)
    del params
    state: TrainState = programs.init(trainable)
    del trainable
    run = _Run(config, mesh, programs, frozen, data.get("eval"))

    with Checkpoints(folder / "checkpoints") as checkpoints, StopNotice() as notice:
        step, position = 0, Position()
        if (restored := checkpoints.restore(state)) is not None:
            step, state = restored.step, restored.state
            position = Position(**restored.progress)
            logger.info("continuing %s after update %d", folder, step)
        metrics = folder / "metrics.jsonl"
        jsonl = JsonlTracker(metrics, first_epoch=step + 1, counter="step")
        services = open_services(folder, config.tracking, json.loads(config.to_json()))
        with RunTracker(folder, [jsonl, *services]) as tracker:
            state, last = _updates(
                run, state, step, position, data["train"], checkpoints, tracker, notice
            )
    trained = mesh.whole(merge(state.trainable, frozen))
    return PretrainResult(_export(config, lm, trained), last)


def _open_data(config: PretrainConfig) -> dict[str, TokenFolder]:
    """The folders of tokens by use.

    Raises:
        ValueError: one was made with another codec or tokenizer, or for other streams.
    """
    folders = {"train": read_folder(config.data)}
    if config.eval_data is not None:
        folders["eval"] = read_folder(config.eval_data)
    checkpoint = read_configs(config.checkpoint)
    wanted = format_of(checkpoint.lm, load_mimi(config.checkpoint)[1], checkpoint.tokenizer)
    for path, folder in zip((config.data, config.eval_data), folders.values(), strict=False):
        got = folder.format
        if got != wanted:
            wrong = ", ".join(
                f"{name} {getattr(got, name)} instead of {getattr(wanted, name)}"
                for name in vars(wanted)
                if getattr(got, name) != getattr(wanted, name)
            )
            raise ValueError(
                f"{path} holds tokens of another checkpoint ({wrong}), expected those of "
                f"{config.checkpoint}; encode the recordings with it"
            )
    return folders


def _updates(
    run: _Run,
    state: TrainState,
    done: int,
    position: Position,
    data: TokenFolder,
    checkpoints: Checkpoints,
    tracker: RunTracker,
    notice: StopNotice,
) -> tuple[TrainState, dict[str, float | None]]:
    """Every update from a position on; the last line of metrics."""
    config, mesh = run.config, run.mesh
    batches = train_batches(
        data, config, first=done, host=jax.process_index(), num_hosts=jax.process_count()
    )
    waiting: list[Any] = []  # metrics that are still on the devices
    last: dict[str, float | None] = {}
    started, begun = time.perf_counter(), done
    for step, codes in enumerate(batches, done + 1):
        state, metrics = run.programs.update(state, run.frozen, _per_device(mesh, codes))
        waiting.append(metrics)
        ends = step == config.steps
        stops = not ends and notice.at(step)
        if not (ends or stops or step % config.log_every == 0):
            continue
        position = _told(run, position, waiting)
        waiting = []
        if ends or step % config.log_every == 0:
            last = {
                **summarise(position.pending),
                "learning_rate": float(np.asarray(run.programs.learning_rate(step - 1))),
                "time/update_s": (time.perf_counter() - started) / (step - begun),
            }
            position = _checked(config, position._replace(pending=[]), last, checkpoints)
            if run.held_out is not None and (ends or step % config.eval_every == 0):
                last |= _evaluate(run, state, run.held_out)
            tracker.log(step, last)
            logger.info("update %d of %d: %s", step, config.steps, _line(last))
            started, begun = time.perf_counter(), step
        if ends or stops or step % config.checkpoint_every == 0:
            checkpoints.save(step, state, position._asdict())
        if stops:
            raise Preempted(
                f"told to stop (SIGTERM): saved after {step} updates; run the same command to "
                "continue"
            )
    return state, last


def _told(run: _Run, position: Position, waiting: list[Any]) -> Position:
    """With the metrics of updates that are done; the host waits for them here.

    Raises:
        ValueError: too many updates in a row had no finite gradient.
    """
    values = [
        {name: float(value) for name, value in run.mesh.fetch(metrics).items()}
        for metrics in waiting
    ]
    skipped, limit = position.skipped, run.config.max_skipped_updates
    for metrics in values:
        skipped = skipped + 1 if metrics["update/skipped"] else 0
        if skipped >= limit:
            raise ValueError(
                f"diverged: {skipped} updates in a row had no finite gradient; the last checkpoint "
                "is intact: lower --optimizer.learning-rate or use --precision f32"
            )
    return position._replace(pending=[*position.pending, *values], skipped=skipped)


def _checked(
    config: PretrainConfig,
    position: Position,
    line: Mapping[str, float | None],
    checkpoints: Checkpoints,
) -> Position:
    """With the loss of the first line.

    Raises:
        ValueError: the loss has left its bounds.
    """
    loss, first = line["loss"], position.first_loss
    assert loss is not None
    if first is None:
        return position._replace(first_loss=loss)
    if not loss <= config.diverged_at * first:
        kept = "there is no checkpoint"
        if checkpoints.latest is not None:
            kept = f"the checkpoint after {checkpoints.latest} updates is intact"
        raise ValueError(
            f"diverged: the loss is {loss:.4g}, expected at most {config.diverged_at} times the "
            f"{first:.4g} of the start; {kept}: lower --optimizer.learning-rate"
        )
    return position


def _evaluate(run: _Run, state: TrainState, held_out: TokenFolder) -> dict[str, float]:
    """Means over all held-out recordings, without an update."""
    hosts = {"host": jax.process_index(), "num_hosts": jax.process_count()}
    totals: dict[str, np.ndarray] = {}
    for codes in eval_batches(held_out, run.config, **hosts):
        rows = _per_device(run.mesh, codes)
        sums = run.mesh.fetch(run.programs.evaluate(state, run.frozen, rows))
        for name, pair in sums.items():
            totals[name] = totals.get(name, 0.0) + np.asarray(pair, np.float64)
    return {
        f"eval/{name}": float(total / weight) if weight else float("nan")
        for name, (total, weight) in totals.items()
    }


def _export(config: PretrainConfig, lm: Moshi, trained: Params) -> Params:
    if config.user_weight:
        lm, trained = drop_user_head(lm, trained)
    listed = with_adapters(lm, config.lora)
    return export_trained(
        config.run_dir / "export", config.checkpoint, listed, trained, dtypes=config.export_dtypes
    )


def _per_device(mesh: Mesh, rows: np.ndarray) -> np.ndarray:
    """[N, ...] -> [D, N / D, ...]."""
    return rows.reshape(mesh.local_size, -1, *rows.shape[1:])


def _line(metrics: Mapping[str, float | None]) -> str:
    shown = ("loss", "nats/text", "nats/words", "nats/audio", "nats/user", "eval/nats/words",
             "eval/nats/audio", "time/update_s")  # fmt: skip
    return ", ".join(f"{name} {metrics[name]:.3g}" for name in shown if name in metrics)
