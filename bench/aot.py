"""`bench aot`: the step compiled for TPUs and GPUs that are not here, and what it moves there.

None of it is a time that was measured. What is counted is in the compiler's own text; what is
divided by a datasheet's figure is a limit. Latency, launches, the overlap of transfers and the
network between chips are not in it.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import jax
import tyro

from bench.compiled import DTYPES, GIB, MIB, Case, Row, compile_case
from bench.machine import describe_machine
from bench.presets import PRESETS
from bench.topology import describe
from layers_jax import atomic_path

__all__ = ["main"]

GB = 10**9


@dataclass(frozen=True, kw_only=True)
class Options:
    """The frame step of a language model, compiled for devices that are described by name.

    Flags take several values, with spaces or commas between; every combination is a row: HBM bytes
    that a frame moves over the bytes it must (ratio), bytes over datasheet bandwidth (bound, a
    limit and not a latency), memory, collectives, and how many sessions fit. A row that does not
    fit says by how much, and what would.
    """

    preset: tuple[str, ...] = ("moshi-7b",)
    """Models: moshi-7b, personaplex-7b, nano, ..."""
    topology: tuple[str, ...] = ("v5e:1x1",)
    """Devices: v5e:1x1, v5e:2x4 (tensor parallel), v5p:1x1x1, v6e:1x1, tpu7x:2x2x1, h100:1, ..."""
    dtype: tuple[str, ...] = ("bf16",)
    """bf16, or int8 (matrices; the rest stays bf16)."""
    batch: tuple[str, ...] = ("1",)
    """Sessions."""
    layers: int | None = None
    """Temporal layers, fewer than the preset's for a quick look."""
    context: int | None = None
    """Frames of the rings; the preset's by default."""
    split_depth: bool = False
    """With several devices: divide the depth transformer too."""
    jobs: int = 1
    """Processes that compile side by side."""
    json: Path | None = None
    """File for the rows."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compiles every row; 1 if none could be compiled, fitting or not."""
    options = tyro.cli(Options, args=argv, prog="moshi-jax bench aot")
    jax.config.update("jax_platforms", "cpu")  # whatever is attached here is not what is asked for
    presets = _listed("--preset", options.preset, PRESETS)
    topologies = _listed("--topology", options.topology)
    dtypes = _listed("--dtype", options.dtype, DTYPES)
    batches = [_positive(text) for text in _listed("--batch", options.batch)]
    cases = [
        Case(preset, topology, dtype, batch, options.layers, options.context, options.split_depth)
        for preset, topology, dtype, batch in product(presets, topologies, dtypes, batches)
    ]
    for name in topologies:
        describe(name)  # before any work: it may be unknown, its compiler may be missing
    print(HEADER, flush=True)
    rows: list[Row] = []
    for case, outcome in _compiled(cases, options.jobs):
        if isinstance(outcome, Row):
            rows.append(outcome)
            print(_line(outcome), flush=True)
        else:
            name = f"{case.preset} {case.topology} {case.dtype} {case.batch}"
            print(f"{name}: {outcome}", file=sys.stderr)
    if options.json is not None:
        report = {"machine": describe_machine("libtpu"), "rows": [row.to_dict() for row in rows]}
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if rows else 1


def _listed(flag: str, given: tuple[str, ...], known: Iterable[str] = ()) -> list[str]:
    """The values of a flag, between spaces or commas."""
    values = [value for text in given for value in text.split(",") if value]
    wrong = [value for value in values if known and value not in known]
    if wrong or not values:
        raise ValueError(
            f"{flag} is {', '.join(wrong) or 'empty'}, expected some of {', '.join(known)}"
        )
    return values


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--batch is {text!r}, expected a number of sessions from 1")
    return int(text)


def _compiled(cases: list[Case], jobs: int) -> Iterator[tuple[Case, Row | Exception]]:
    """Each case with its row, as they are finished."""
    if jobs == 1 or len(cases) == 1:
        for case in cases:
            try:
                yield case, compile_case(case)
            except (ValueError, jax.errors.JaxRuntimeError) as error:
                yield case, error
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), _on_cpu) as pool:
        futures = {pool.submit(compile_case, case): case for case in cases}
        for future in as_completed(futures):
            error = future.exception()
            if error is None:
                yield futures[future], future.result()
            elif isinstance(error, ValueError | jax.errors.JaxRuntimeError):
                yield futures[future], error
            else:
                raise error


def _on_cpu() -> None:
    jax.config.update("jax_platforms", "cpu")


HEADER = (
    f"{'preset':<15}{'topology':<13}{'dtype':<6}{'batch':>5}{'ratio':>8}{'GB/frame':>10}"
    f"{'bound ms':>10}{'peak GiB':>10}{'temp MiB':>10}{'sessions':>9}{'kernels':>9}"
    f"{'collectives':>12}{'copies':>7}{'s':>6}"
)


def _line(row: Row) -> str:
    head = f"{row.preset:<15}{row.topology:<13}{row.dtype:<6}{row.batch:>5}"
    if not row.fits:
        return f"{head}  {row.advice}"
    return (
        f"{head}{row.bytes_ratio:>8.3f}{row.bytes_moved / GB:>10.3f}{row.bound_ms:>10.2f}"
        f"{row.peak_bytes / GIB:>10.2f}{row.temporary_bytes / MIB:>10.1f}{row.sessions:>9}"
        f"{row.kernels:>9}{sum(row.collectives.values()):>12}{len(row.copies):>7}{row.total_s:>6.0f}"
    )
