"""The one error of this package: every problem of a checkpoint at once, in one readable line."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product


class ConversionError(ValueError):
    """A checkpoint cannot be converted.

    Attributes:
      problems: one entry a kind of problem, each naming every tensor it concerns.
    """

    def __init__(self, problems: Sequence[str], *, subject: str = "checkpoint"):
        self.problems = tuple(problems)
        super().__init__(f"{subject}: {'; '.join(self.problems)}")


def fold_names(names: Iterable[str]) -> list[str]:
    """Names that differ only in their numbers as one: `layers.{0-31}.norm1.alpha`.

    Only where the numbers form a whole grid, so the short form says exactly what the long one did.
    """
    groups: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for name in names:
        numbers = tuple(int(digits) for digits in re.findall(r"(?<=\.)\d+(?=\.|$)", name))
        groups[re.sub(r"(?<=\.)\d+(?=\.|$)", "{}", name)].add(numbers)
    folded = []
    for pattern, found in groups.items():
        axes = [sorted(set(axis)) for axis in zip(*found, strict=True)]
        if found == set(product(*axes)):
            folded.append(pattern.format(*map(_span, axes)))
        else:
            folded += [pattern.format(*numbers) for numbers in sorted(found)]
    return folded


def _span(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{{{numbers[0]}-{numbers[-1]}}}"
    return f"{{{','.join(map(str, numbers))}}}"


def describe(kind: str, found: Iterable[tuple[str, str]]) -> list[str]:
    """One problem text for each distinct detail among `(name, detail)` pairs."""
    by_detail: dict[str, list[str]] = defaultdict(list)
    for name, detail in found:
        by_detail[detail].append(name)
    return [f"{kind} {', '.join(fold_names(names))}{detail}" for detail, names in by_detail.items()]
