"""The run folder: its config.json, and its metrics.jsonl, which process 0 alone writes."""

import json
import logging
import math
import sys
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
from rich.logging import RichHandler

from convert import read_configs
from grpo.config import GRPOConfig, TrackingConfig
from grpo.samples import Sample, write_samples
from helium_jax import TextTokenizer
from layers_jax import atomic_path

logger = logging.getLogger("grpo")


def log_progress(name: str = "grpo") -> None:
    """Lets a command show its progress: lines on stderr, dressed up on a terminal.

    Args:
        name: of the logger that progress goes to.
    """
    logger = logging.getLogger(name)
    terminal = sys.stderr.isatty()
    logger.handlers = [RichHandler(show_path=False) if terminal else logging.StreamHandler()]
    logger.setLevel(logging.INFO)
    logger.propagate = False  # orbax brings a root handler that would say everything twice


FREE_TO_CHANGE = {
    "devices",
    "mapping",
    "mesh_shape",
    "distributed",
    "tracking",
    "samples",
    "scoring_threads",
    "monitors",
    "checkpoint_every",
    "max_skipped_updates",
}
"""Settings that do not change what a run computes: it may continue with others."""

_VERDICT = ("model", "structured", "soft", "thinking", "max_answer_tokens")


@runtime_checkable
class RunConfig(Protocol):
    """Settings of a run, of whatever trainer."""

    @property
    def run_dir(self) -> Path:
        """The run folder."""
        ...

    def to_json(self) -> str:
        """All settings."""
        ...


def open_run(config: RunConfig, free: Collection[str] = FREE_TO_CHANGE) -> Path:
    """The run folder, with its config.json.

    Args:
        config: of the run.
        free: settings that may differ from those of the run that is found there.

    Raises:
        ValueError: it belongs to a run with other settings.
    """
    path = config.run_dir / "config.json"
    if path.exists():
        there = _computed(json.loads(path.read_text(encoding="utf-8")))
        here = _computed(json.loads(config.to_json()))
        keys = (there.keys() | here.keys()) - set(free)
        changed = sorted(key for key in keys if there.get(key) != here.get(key))
        if changed:
            raise ValueError(
                f"{config.run_dir} holds a run with other settings ({', '.join(changed)}); use its "
                "settings to continue it, or another --run-dir"
            )
    if jax.process_index() == 0:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(config.to_json() + "\n", encoding="utf-8")
    return config.run_dir


def _computed(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without those of a judge's service that do not change its verdicts."""
    judge = settings.get("judge")
    if not isinstance(judge, dict):
        return settings
    remote = {name: judge.get("remote", {}).get(name) for name in _VERDICT}
    return {**settings, "judge": {"kind": judge.get("kind"), "remote": remote}}


@runtime_checkable
class Tracker(Protocol):
    """Where the metrics of epochs go."""

    def log(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Write one epoch; a value may be missing."""

    def close(self) -> None:
        """Finish."""


class JsonlTracker:
    """Appends `{"epoch": ..., name: value, ...}` lines to a file; a missing value is null.

    A continued run drops the lines of epochs it is about to repeat: each stands there once.

    Args:
        path: the file.
        first_epoch: number of the next line.
        counter: what lines are numbered by, if not epochs.
    """

    def __init__(self, path: Path, *, first_epoch: int = 0, counter: str = "epoch") -> None:
        self._file, self._counter = None, counter
        if jax.process_index() != 0:
            return
        kept = []
        if path.exists():
            kept = [record for record in read_metrics(path) if record[counter] < first_epoch]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(map(_json_line, kept)), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def log(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Write one line and flush it: a run that dies keeps what it had measured."""
        if self._file is not None:
            self._file.write(_json_line({self._counter: epoch, **metrics}))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "JsonlTracker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TensorBoardTracker:
    """Scalars for TensorBoard in the run folder (extra `tensorboard`)."""

    def __init__(self, folder: Path) -> None:
        """Opens an event file.

        Raises:
            ImportError: tensorboardX is not installed.
        """
        try:
            from tensorboardX import SummaryWriter
        except ModuleNotFoundError as error:
            raise _extra("tensorboardX", "tensorboard") from error
        self._writer = SummaryWriter(str(folder))

    def log(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Write what there is."""
        for name, value in metrics.items():
            if value is not None:
                self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class WandbTracker:
    """Metrics to Weights & Biases (extra `wandb`); a run that continues goes on where it was."""

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        """Starts or resumes the run named after the folder.

        Raises:
            ImportError: wandb is not installed.
        """
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise _extra("wandb", "wandb") from error
        self._run = wandb.init(
            project=project,
            name=folder.name,
            id=f"{folder.name}-{zlib.crc32(str(folder.absolute()).encode()):08x}",
            resume="allow",
            dir=str(folder),
            config=dict(config),
        )

    def log(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Send what there is."""
        there = {name: value for name, value in metrics.items() if value is not None}
        self._run.log(there, step=epoch)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def _extra(package: str, extra: str) -> ImportError:
    return ImportError(f"{package} is not installed; run: pip install 'moshi-jax[{extra}]'")


class RunTracker:
    """Everything that watches a run: metrics, and rollouts to listen to. Process 0 alone writes."""

    def __init__(
        self, folder: Path, trackers: Sequence[Tracker], tokenizer: TextTokenizer | None = None
    ) -> None:
        self._folder, self._trackers, self._tokenizer = folder, trackers, tokenizer

    def log(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """To all trackers."""
        for tracker in self._trackers:
            tracker.log(epoch, metrics)

    def samples(self, epoch: int, samples: Sequence[Sample]) -> None:
        """`samples/EPOCH-N-AXIS.wav` (user left, agent right) and the agent's text beside it."""
        if samples and jax.process_index() == 0:
            write_samples(self._folder / "samples", epoch, samples, self._tokenizer)

    def __enter__(self) -> "RunTracker":
        return self

    def __exit__(self, *_: object) -> None:
        for tracker in self._trackers:
            tracker.close()


def open_tracker(folder: Path, config: GRPOConfig, *, first_epoch: int) -> RunTracker:
    """The trackers that the configuration asks for.

    Raises:
        ImportError: one needs an extra that is not installed.
    """
    jsonl = JsonlTracker(folder / "metrics.jsonl", first_epoch=first_epoch)
    services = open_services(folder, config.tracking, json.loads(config.to_json()))
    return RunTracker(folder, [jsonl, *services], _tokenizer(config))


def open_services(
    folder: Path, tracking: TrackingConfig, settings: Mapping[str, Any]
) -> list[Tracker]:
    """The trackers beside metrics.jsonl; process 0 alone has any.

    Raises:
        ImportError: one needs an extra that is not installed.
    """
    services: list[Tracker] = []
    if jax.process_index() == 0:
        if tracking.tensorboard:
            services.append(TensorBoardTracker(folder / "tensorboard"))
        if tracking.wandb_project is not None:
            services.append(WandbTracker(folder, tracking.wandb_project, settings))
    return services


def _tokenizer(config: GRPOConfig) -> TextTokenizer | None:
    """The checkpoint's tokenizer; None, with a word in the log, if it cannot be used here."""
    if config.samples.every_epochs == 0:
        return None
    try:
        return TextTokenizer(read_configs(config.checkpoint).tokenizer)
    except (FileNotFoundError, ValueError) as error:
        logger.warning("samples show token ids instead of words: %s", error)
        return None


def _json_line(record: Mapping[str, float | int | None]) -> str:
    # JSON has no NaN: it becomes null, as a metric that does not exist.
    clean = {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in record.items()
    }
    return json.dumps(clean, allow_nan=False) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of a metrics file. A last line cut off by a crash is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def summarise(records: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of several updates as one record: means; the extreme for `/max` and `/min` names."""
    columns: dict[str, list[float]] = {}
    for record in records:
        for name, value in record.items():
            columns.setdefault(name, []).append(float(value))
    reduce = {"max": max, "min": min}
    return {
        name: reduce.get(name.rpartition("/")[2], lambda v: sum(v) / len(v))(values)
        for name, values in columns.items()
    }
