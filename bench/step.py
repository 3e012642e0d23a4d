"""`bench step`: what a frame costs on the device at hand, whole and stage by stage.

See docs/benchmarks.md for what each number means.
"""

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro

from bench.latency import measure, measured_bandwidth, uncached
from bench.machine import describe_machine
from bench.presets import preset
from bench.stages import Model, frame_program, loaded, made, stage_calls, started
from bench.summary import summarise
from helium_jax import Sampling
from layers_jax import Precision, atomic_path

__all__ = ["StepOptions", "main", "run"]

PRECISIONS = {
    "f32": Precision.f32,
    "bf16": Precision.bf16,
    "int8": Precision.int8_weights,
}


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """Times the frame step of a model: codec and language model, 80 ms of audio in and out."""

    preset: str = "nano"
    """Shape of the model, with random weights: moshi-7b, personaplex-7b, moshi-eighth, nano, ..."""
    checkpoint: Path | None = None
    """Checkpoint folder to load instead of a preset."""
    batch: str = "1"
    """Sessions a call serves; several numbers separated by commas are measured in turn."""
    dtype: str = "f32"
    """Number formats of the language model: f32, bf16, int8; several separated by commas."""
    context_fill: str = "0"
    """Share of the attention context that was used before the first timed frame, 0 to 1."""
    frames: int = 100
    """Frames that are timed."""
    warmup: int = 10
    """Frames before them that do not count."""
    greedy: bool = False
    """Take the most probable token everywhere instead of sampling as the reference does."""
    counts_only: bool = False
    """Compile and count, run nothing: what a CI check compares."""
    stages: bool = True
    """Also time each stage in a program of its own."""
    trace: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for a profile of ten frames with the stages as named scopes."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File for the figures, to be compared by `bench compare`."""
    against: Literal["moshi"] | None = None
    """Also run PyTorch's step with the same weights: equal tokens, ratio of processor time."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; see `StepOptions`."""
    options = tyro.cli(StepOptions, args=argv, prog="bench step")
    if options.json is not None and not options.json.parent.is_dir():
        raise FileNotFoundError(f"{options.json.parent} is not a folder, expected one for --json")
    if options.against is not None:
        from bench.peers.moshi_lm import against_moshi

        return against_moshi(options)
    report = run(options)
    print(table(report))
    if options.json is not None:
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(report) + "\n")
    return 0


def run(options: StepOptions) -> dict[str, Any]:
    """Measures every combination of dtype, batch and fill.

    Raises:
      ValueError: an option is none of those that are known, or the model does not fit the device.
    """
    dtypes = _choices("dtype", options.dtype, PRECISIONS)
    batches = [int(value) for value in _numbers("batch", options.batch, 1, 4096, whole=True)]
    fills = _numbers("context_fill", options.context_fill, 0, 1)
    if options.frames < 1 or options.warmup < 1:
        raise ValueError(
            f"frames is {options.frames}, warmup {options.warmup}, expected at least 1 of each"
        )
    shape = preset(options.preset) if options.checkpoint is None else None
    bandwidth = None if options.counts_only else measured_bandwidth()
    rows = []
    for dtype in dtypes:
        precision = PRECISIONS[dtype]()
        try:
            model = made(shape, precision) if shape else loaded(str(options.checkpoint), precision)
            for row in _rows(options, model, batches, fills, bandwidth):
                rows.append({"model": _name(options), "dtype": dtype, **row})
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            first = str(error).splitlines()[0]
            raise ValueError(
                f"{_name(options)} in {dtype} does not fit this device ({first}); try --dtype "
                "int8, a smaller --batch or a larger device"
            ) from error
    paths = ("json", "trace")  # where files went says nothing about a figure
    given = {k: v for k, v in asdict(options).items() if v is not None and k not in paths}
    return {
        "kind": "step",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": describe_machine(),
        "options": {key: str(value) for key, value in given.items()},
        "bandwidth": bandwidth,
        "rows": rows,
    }


def _rows(
    options: StepOptions,
    model: Model,
    batches: list[int],
    fills: list[float],
    bandwidth: float | None,
) -> Iterator[dict[str, Any]]:
    sampling = Sampling.greedy() if options.greedy else Sampling()
    for batch in batches:
        pcm = np.random.default_rng(0).standard_normal((batch, model.mimi.config.frame_samples))
        pcm, mask = jax.device_put((pcm.astype(np.float32) * 0.1, np.ones(batch, bool)))
        state = started(model, batch, 0)
        begun = time.perf_counter()
        with uncached():
            lowered = frame_program(model, sampling).lower(model.params, state, pcm, mask)
            traced = time.perf_counter()
            compiled = lowered.compile()
        counts = summarise(compiled, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
        row = {
            "batch": batch,
            "trace_s": round(traced - begun, 2),
            "compile_s": round(time.perf_counter() - traced, 2),
            "counts": counts,
            "device_bytes": counts["argument_bytes"]
            + counts["temporary_bytes"]
            + counts["new_output_bytes"],
            "floor_bytes": counts["argument_bytes"] - _table_bytes(model),
        }
        if options.counts_only:
            yield row
            continue
        assert bandwidth is not None
        floor_ms = row["floor_bytes"] / bandwidth * 1e3
        for fill in fills:
            state = started(model, batch, fill)
            timed = _timed(options, model, compiled, state, pcm, mask)
            stages = {}
            if options.stages:
                for name, call in stage_calls(model, batch, fill, sampling):
                    latency = measure(call, frames=options.frames, warmup=options.warmup)
                    stages[name] = latency.quantiles_ms()
            yield {
                **row,
                "context_fill": fill,
                **timed,
                "stages": stages,
                "floor_ms": round(floor_ms, 3),
                "over_floor": round(timed["frame"]["p50"] / floor_ms, 3),
            }


def _timed(
    options: StepOptions, model: Model, compiled: Any, state: Any, pcm: Any, mask: Any
) -> dict[str, Any]:
    """The whole frame, call after call on its own state."""
    box = [state]

    def call() -> Any:
        box[0], frame = compiled(model.params, box[0], pcm, mask)
        return frame

    latency = measure(call, frames=options.frames, warmup=options.warmup)
    budget_s = model.frame_s
    trace = jax.profiler.trace(str(options.trace)) if options.trace else nullcontext()
    with trace:
        for _ in range(10 if options.trace else 0):
            jax.block_until_ready(call())
    stats = jax.devices()[0].memory_stats() or {}
    frame = latency.quantiles_ms()
    return {
        "frame": frame,
        "frame_ms": [round(float(value) * 1e3, 4) for value in latency.frame_s],
        "budget_ms": budget_s * 1e3,
        "late": int(np.sum(latency.frame_s > budget_s)),
        "dispatch_ms": round(float(np.median(latency.dispatch_s)) * 1e3, 4),
        "harness_share": round(latency.harness_s / float(np.median(latency.frame_s)), 6),
        "peak_bytes": stats.get("peak_bytes_in_use"),
    }


def table(report: dict[str, Any]) -> str:
    """The figures for people: machine, a line a row, and how many sessions keep real time."""
    lines = [f"{name:<12} {value}" for name, value in report["machine"].items()]
    if report["bandwidth"] is not None:
        lines.append(f"{'bandwidth':<12} {report['bandwidth'] / 1e9:.1f} GB/s read, measured")
    kept: dict[tuple[str, str], int] = {}
    for row in report["rows"]:
        counts = row["counts"]
        lines.append("")
        lines.append(
            f"{row['model']} {row['dtype']} batch {row['batch']}: "
            f"traced in {row['trace_s']:.1f} s, compiled in {row['compile_s']:.1f} s, "
            f"{row['device_bytes'] / 1e6:.1f} MB on the device"
        )
        lines.append("  " + ", ".join(f"{name} {value}" for name, value in counts.items()))
        if "frame" not in row:
            continue
        lines.append(f"  context {row['context_fill']:.0%} used, ms a frame:")
        for name, figures in {"frame": row["frame"], **row["stages"]}.items():
            quantiles = "  ".join(f"{q} {value:9.3f}" for q, value in figures.items())
            lines.append(f"    {name:<9} {quantiles}")
        lines.append(
            f"    {row['late']} of {len(row['frame_ms'])} frames over {row['budget_ms']:.0f} ms, "
            f"dispatch {row['dispatch_ms']:.3f} ms, harness {row['harness_share']:.3%} of a frame; "
            f"floor {row['floor_ms']:.2f} ms ({row['floor_bytes'] / 1e6:.1f} MB at the measured "
            f"bandwidth), p50 is {row['over_floor']:.2f} times that"
        )
        if row["frame"]["p99"] < row["budget_ms"]:
            key = (row["model"], row["dtype"])
            kept[key] = max(kept.get(key, 0), row["batch"])
    for (model, dtype), batch in kept.items():
        lines.append(f"\n{model} {dtype}: {batch} sessions keep real time (p99 below the budget), "
                     "the most of the batches measured")  # fmt: skip
    return "\n".join(lines)


def _name(options: StepOptions) -> str:
    return options.preset if options.checkpoint is None else options.checkpoint.name


def _table_bytes(model: Model) -> int:
    """Embedding tables: a frame reads some rows of them, not the whole."""
    leaves = jax.tree_util.tree_leaves_with_path(model.params[1])
    return sum(leaf.nbytes for path, leaf in leaves if getattr(path[-1], "key", "") == "table")


def _choices(name: str, text: str, known: Any) -> list[str]:
    values = [value.strip() for value in text.split(",") if value.strip()]
    if not values or not set(values) <= set(known):
        raise ValueError(f"{name} is {text!r}, expected some of {', '.join(known)}")
    return values


def _numbers(
    name: str, text: str, least: float, most: float, *, whole: bool = False
) -> list[float]:
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    good = all(least <= value <= most and (not whole or value == int(value)) for value in values)
    if not values or not good:
        kind = "whole numbers" if whole else "numbers"
        raise ValueError(
            f"{name} is {text!r}, expected {kind} from {least} to {most} separated by commas"
        )
    return values
