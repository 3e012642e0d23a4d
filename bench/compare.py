"""`bench compare A.json B.json`: what got slower, larger or more between two reports of `step`."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from jaxtyping import Float

from bench.summary import NEVER_MORE

__all__ = ["CompareOptions", "Finding", "compare", "main", "ratio_of_medians"]

KEY = ("model", "dtype", "batch", "context_fill")
SLACK_BYTES = 4096  # alignment and scalars
DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Compares two reports row by row; exit code 1 if the second is worse."""

    before: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A.json")]
    """Report to compare with."""
    after: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B.json")]
    """Report to judge."""
    tolerance: float = 0.05
    """How much more of anything is still the same: 0.05 is five percent."""
    counts_only: bool = False
    """Judge counts and bytes and leave out times, which another load on the machine moves."""


@dataclass(frozen=True)
class Finding:
    """One figure of one row in both reports."""

    row: str
    what: str
    text: str
    worse: bool


def main(argv: list[str] | None = None) -> int:
    """Runs the command; see `CompareOptions`."""
    options = tyro.cli(CompareOptions, args=argv, prog="bench compare")
    reports = [_read(path) for path in (options.before, options.after)]
    findings = list(compare(*reports, tolerance=options.tolerance, counts_only=options.counts_only))
    for line in _machines(*reports):
        print(line)
    for finding in findings:
        mark = "WORSE" if finding.worse else "ok"
        print(f"{mark:<6} {finding.row}  {finding.what:<17} {finding.text}")
    worse = sum(finding.worse for finding in findings)
    print(f"{worse} of {len(findings)} figures are worse by more than {options.tolerance:.0%}")
    return 1 if worse else 0


def compare(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    tolerance: float,
    counts_only: bool = False,
) -> Iterator[Finding]:
    """Judges every figure of the rows that both reports have.

    A count or a number of bytes is worse when it grew by more than the tolerance; of some kinds
    (`NEVER_MORE`) one more is one too many. A time is worse when the ratio of medians is beyond the
    tolerance with its whole 95 % interval, so that scatter alone is no regression.

    Raises:
      ValueError: the reports have no row in common, or are of different devices and times are asked
        for.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance is {tolerance}, expected 0 or more")
    old = {_key(row): row for row in before["rows"]}
    new = {_key(row): row for row in after["rows"]}
    common = [key for key in old if key in new]
    if not common:
        raise ValueError(
            f"the reports have no row in common: got {sorted(map(_name, old))} and "
            f"{sorted(map(_name, new))}, expected the same models, dtypes and batches"
        )
    devices = [report["machine"]["device"] for report in (before, after)]
    timed = not counts_only and all(
        "frame_ms" in new[key] and "frame_ms" in old[key] for key in common
    )
    if timed and devices[0] != devices[1]:
        raise ValueError(
            f"the reports are of {devices[0]} and {devices[1]}, expected one device; "
            "compare their counts with --counts-only"
        )
    for key in common:
        name = _name(key)
        for what, count in new[key]["counts"].items():
            yield _counted(name, what, old[key]["counts"].get(what, 0), count, tolerance)
        if timed:
            yield _timed(name, old[key]["frame_ms"], new[key]["frame_ms"], tolerance)


def ratio_of_medians(
    before: Float[np.ndarray, " N"], after: Float[np.ndarray, " M"], *, seed: int = 0
) -> tuple[float, float, float]:
    """Median of `after` over median of `before`, and the 95 % interval by resampling both."""
    rng = np.random.default_rng(seed)

    def medians(values: np.ndarray) -> np.ndarray:
        return np.median(values[rng.integers(0, len(values), (DRAWS, len(values)))], axis=1)

    low, high = np.quantile(medians(after) / medians(before), [0.025, 0.975])
    return float(np.median(after) / np.median(before)), float(low), float(high)


def _counted(row: str, what: str, old: int, new: int, tolerance: float) -> Finding:
    if what in NEVER_MORE:
        worse = new > old
    else:
        slack = SLACK_BYTES if what.endswith("_bytes") else 0
        worse = new > old * (1 + tolerance) + slack
    ratio = f"{new / old:.3f} x" if old else "from none" if new else "none"
    return Finding(row, what, f"{old} -> {new} ({ratio})", worse)


def _timed(row: str, old: list[float], new: list[float], tolerance: float) -> Finding:
    ratio, low, high = ratio_of_medians(np.array(old), np.array(new))
    text = (
        f"{np.median(old):.3f} -> {np.median(new):.3f} ms "
        f"({ratio:.3f} x, 95 % of {low:.3f} to {high:.3f})"
    )
    return Finding(row, "frame p50", text, low > 1 + tolerance)


def _machines(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Where the two reports were not made alike: another compiler may explain another count."""
    for name, value in after["machine"].items():
        if name != "load" and before["machine"].get(name) != value:
            yield f"{name:<12} {before['machine'].get(name)} -> {value}"


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in KEY)


def _name(key: tuple[Any, ...]) -> str:
    return " ".join(str(part) for part in key if part is not None)


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is not JSON ({error}), expected a report of bench step"
        ) from error
    if not isinstance(report, dict) or report.get("kind") != "step":
        raise ValueError(f"{path} is no report of `bench step --json`, expected one")
    return report
