"""`python -m convert`: PyTorch checkpoints to JAX, back, and compared."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import Progress as Bars
from tyro.conf import Positional, arg, subcommand

from convert.export import Dtypes, to_torch
from convert.folders import Progress, to_jax
from convert.verify import compare
from layers_jax.command import run_command


@dataclass(frozen=True)
class ToJax:
    """Convert a release folder to orbax checkpoints; JSON files and tokenizer are copied along.

    Attributes:
      source: folder as Kyutai or NVIDIA publishes it: safetensors files, sentencepiece model,
        config.json where there is one.
      destination: folder to make; must not exist, or be empty.
      arch: JSON file with the shapes of a model whose folder does not say them.
    """

    source: Annotated[Positional[Path], arg(metavar="SRC")]
    destination: Annotated[Positional[Path], arg(metavar="DST")]
    arch: Path | None = None

    def run(self) -> int:
        """Converts."""
        with _progress() as progress:
            to_jax(self.source, self.destination, arch=self.arch, progress=progress)
        print(f"wrote {self.destination}: orbax checkpoints moshi/ and mimi/")
        return 0


@dataclass(frozen=True)
class ToTorch:
    """Convert a folder made by to-jax back to a release that the PyTorch runtimes load.

    Attributes:
      source: folder made by to-jax.
      destination: folder to make; must not exist, or be empty.
      dtypes: number format of the language model's tensors; keep gives the original bytes.
    """

    source: Annotated[Positional[Path], arg(metavar="SRC")]
    destination: Annotated[Positional[Path], arg(metavar="DST")]
    dtypes: Dtypes = "keep"

    def run(self) -> int:
        """Converts."""
        with _progress() as progress:
            to_torch(self.source, self.destination, dtypes=self.dtypes, progress=progress)
        print(f"wrote {self.destination}: a release")
        return 0


@dataclass(frozen=True)
class Verify:
    """Compare two checkpoints tensor by tensor; exit code 1 if any byte differs.

    Attributes:
      a: release folder, folder made by to-jax, or safetensors file.
      b: what to compare it with; a folder of either kind for a folder, a file for a file.
    """

    a: Annotated[Positional[Path], arg(metavar="A")]
    b: Annotated[Positional[Path], arg(metavar="B")]

    def run(self) -> int:
        """Compares, one line a difference."""
        result = compare(self.a, self.b)
        for found in result.differences:
            largest = "" if found.max_abs is None else f", max abs difference {found.max_abs:.3g}"
            print(f"{found.name}: {found.what} {found.detail}{largest}")
        if result.differences:
            print(f"{len(result.differences)} of {result.num_tensors} tensors differ")
            return 1
        print(f"all {result.num_tensors} tensors are identical")
        return 0


ABOUT = "PyTorch checkpoints to JAX, back, and compared."

Command = (
    Annotated[ToJax, subcommand("to-jax")]
    | Annotated[ToTorch, subcommand("to-torch")]
    | Annotated[Verify, subcommand("verify")]
)


@contextmanager
def _progress() -> Generator[Progress, None, None]:
    """A bar on a terminal; elsewhere a line when a stretch begins and when it ends."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines
        return
    with Bars(console=console) as bars:

        def start(what: str, count: int) -> Callable[[], None]:
            task = bars.add_task(what, total=count)
            return lambda: bars.advance(task)

        yield start


def _lines(what: str, count: int) -> Callable[[], None]:
    begin, done = time.perf_counter(), 0
    print(f"{what}: {count} tensors", file=sys.stderr)

    def tick() -> None:
        nonlocal done
        done += 1
        if done == count:
            print(f"{what}: {time.perf_counter() - begin:.1f} s", file=sys.stderr)

    return tick


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; see `run_command` for what becomes of an error."""
    command = tyro.cli(Command, args=argv, description=ABOUT)  # pyrefly: ignore
    return command.run()


if __name__ == "__main__":
    sys.exit(run_command("python -m convert", main))
