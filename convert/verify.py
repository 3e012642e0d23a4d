"""Two checkpoints compared tensor by tensor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convert.checkpoint import PARTS, read_configs
from convert.safetensors_io import Tensors
from convert.shards import open_weights
from convert.sources import Source, abstract_params, open_source

Weights = Source | Tensors


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A tensor that is not the same bytes on both sides.

    Attributes:
      name: released name of the tensor, after its part or file.
      what: "only in A", "only in B", "shape", "dtype" or "values".
      detail: both sides' shapes or formats, or how many values differ.
      max_abs: largest absolute difference of a value; None where there is nothing to subtract.
    """

    name: str
    what: str
    detail: str = ""
    max_abs: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Outcome of `compare`: how many tensors were looked at, and which differ."""

    num_tensors: int
    differences: list[Difference]


def compare(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Comparison:
    """Compares two checkpoints: folders of either kind, or two safetensors files.

    Folders are compared under the released names, whatever names their files use.

    Raises:
      ConversionError: one of them is broken.
      ValueError: one is a folder and the other a file.
    """
    for path in (a, b):
        if not Path(path).exists():
            raise FileNotFoundError(f"cannot compare {path}: got nothing there, expected weights")
    if Path(a).is_dir() != Path(b).is_dir():
        raise ValueError(f"cannot compare {a} with {b}: got a file and a folder, expected a pair")
    differences: list[Difference] = []
    count = 0
    for prefix, left, right in _pairs(Path(a), Path(b)):
        count += len({**left.tensors, **right.tensors})
        differences += _differences(prefix, left, right)
    return Comparison(num_tensors=count, differences=differences)


def _pairs(a: Path, b: Path) -> Iterator[tuple[str, Weights, Weights]]:
    if a.is_file():
        with open_weights(a) as left, open_weights(b) as right:
            yield "", left, right
        return
    ours, theirs = read_configs(a), read_configs(b)
    for part in PARTS:
        if part not in ours.parts and part not in theirs.parts:
            continue
        with (
            open_source(ours, part, abstract_params(ours.config(part))) as left,
            open_source(theirs, part, abstract_params(theirs.config(part))) as right,
        ):
            yield f"{part} ", left, right


def _differences(prefix: str, a: Weights, b: Weights) -> Iterator[Difference]:
    for key in sorted({**a.tensors, **b.tensors}):
        name, left, right = prefix + key, a.tensors.get(key), b.tensors.get(key)
        if left is None or right is None:
            yield Difference(name=name, what="only in B" if left is None else "only in A")
        elif left.shape != right.shape:
            detail = f"{list(left.shape)} and {list(right.shape)}"
            yield Difference(name=name, what="shape", detail=detail)
        else:
            x, y = a.read(key), b.read(key)
            if left.format != right.format:
                detail = f"{left.format} and {right.format}"
                yield Difference(name=name, what="dtype", detail=detail, max_abs=_max_abs(x, y))
            elif x.tobytes() != y.tobytes():
                bits = np.dtype(f"u{x.dtype.itemsize}")
                detail = f"{np.count_nonzero(x.view(bits) != y.view(bits))} of {x.size} values"
                yield Difference(name=name, what="values", detail=detail, max_abs=_max_abs(x, y))


def _max_abs(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.max(np.abs(x.astype(np.float64) - y.astype(np.float64)), initial=0.0))
