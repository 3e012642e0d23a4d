"""Files in, files out: which, in what groups, and what is left of an earlier run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Job", "find_jobs", "groups"]


@dataclass(frozen=True)
class Job:
    """One file to make of another."""

    source: Path
    target: Path


def find_jobs(
    source: Path, target: Path, *, sources: set[str], targets: set[str], suffix: str
) -> list[Job]:
    """The jobs of a file or a folder; below a folder, the target has the same tree.

    Args:
      source: a file, or a folder that is searched through.
      target: a file for a file, a folder for a folder.
      sources: suffixes that are looked for in a folder.
      targets: suffixes that a target file may have.
      suffix: of the targets in a folder.

    Raises:
      FileNotFoundError: no source, or nothing to do in it.
      ValueError: the target has another suffix, or two sources would make one target.
    """
    if source.is_file():
        if target.suffix.lower() not in targets:
            raise ValueError(
                f"cannot write {target}: got suffix {target.suffix!r}, expected one of "
                f"{', '.join(sorted(targets))} for a single file"
            )
        return [Job(source, target)]
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is not there, expected a file or a folder")
    if target.is_file():
        raise ValueError(f"{target} is a file, expected a folder since {source} is one")
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in sources)
    if not found:
        raise FileNotFoundError(
            f"{source} has none of {', '.join(sorted(sources))}, expected files to work on"
        )
    jobs = [Job(path, (target / path.relative_to(source)).with_suffix(suffix)) for path in found]
    if len({job.target for job in jobs}) < len(jobs):
        raise ValueError(
            f"{source} has files that differ in their suffix only, expected other names too, since "
            "they would make one target; work on them one by one"
        )
    return jobs


def groups(jobs: Iterable[Job], rows: Callable[[Job], int], batch: int) -> Iterator[Sequence[Job]]:
    """Jobs in turn, as many at once as have at most `batch` rows together.

    Raises:
      ValueError: a single one has more.
    """
    group, taken = [], 0
    for job in jobs:
        count = rows(job)
        if count > batch:
            raise ValueError(
                f"{job.source} has {count} channels, expected at most {batch}; raise --batch or "
                "pick one with --channel"
            )
        if group and taken + count > batch:
            yield group
            group, taken = [], 0
        group.append(job)
        taken += count
    if group:
        yield group
