"""The run folder: its config.json, and its metrics.jsonl, which process 0 alone writes."""

import json
import logging
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
from rich.logging import RichHandler

from grpo.config import GRPOConfig
from layers_jax import atomic_path


def log_progress() -> None:
    """Lets a command show its progress: lines on stderr, dressed up on a terminal."""
    logger = logging.getLogger("grpo")
    terminal = sys.stderr.isatty()
    logger.handlers = [RichHandler(show_path=False) if terminal else logging.StreamHandler()]
    logger.setLevel(logging.INFO)
    logger.propagate = False  # orbax brings a root handler that would say everything twice


def open_run(config: GRPOConfig) -> Path:
    """The run folder, with its config.json.

    Raises:
        ValueError: it belongs to a run with other settings (the devices may change).
    """
    path = config.run_dir / "config.json"
    if path.exists():
        there, here = json.loads(path.read_text(encoding="utf-8")), json.loads(config.to_json())
        keys = (there.keys() | here.keys()) - {"devices"}
        changed = sorted(key for key in keys if there.get(key) != here.get(key))
        if changed:
            raise ValueError(
                f"{config.run_dir} holds a run with other settings ({', '.join(changed)}); use its "
                "settings to continue it, or another --run-dir"
            )
    config.run_dir.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(config.to_json() + "\n", encoding="utf-8")
    return config.run_dir


class JsonlTracker:
    """Appends `{"epoch": ..., name: value, ...}` lines to a file; a missing value is null.

    A continued run drops the lines of epochs it is about to repeat: each stands there once.
    """

    def __init__(self, path: Path, *, first_epoch: int = 0) -> None:
        self._file = None
        if jax.process_index() != 0:
            return
        kept = []
        if path.exists():
            kept = [record for record in read_metrics(path) if record["epoch"] < first_epoch]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(map(_json_line, kept)), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def log(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Write one line and flush it: a run that dies keeps what it had measured."""
        if self._file is not None:
            self._file.write(_json_line({"epoch": epoch, **metrics}))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "JsonlTracker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


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
