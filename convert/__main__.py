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

from convert.checkpoint import read_configs
from convert.export import Dtypes, ReleaseOptions, to_torch
from convert.folders import Progress, to_jax
from convert.fuse import fuse_lora
from convert.hub import push
from convert.inspect import inspect
from convert.verify import compare
from layers_jax.command import run_command


@dataclass(frozen=True)
class ToJax:
    """Convert a checkpoint to orbax; small files are copied along.

    Attributes:
      source: folder as Kyutai, NVIDIA or moshi-finetune writes it, or transformers; a safetensors
        file; or hf://ORG/NAME@REVISION.
      destination: folder to make; must not exist, or be empty.
      arch: JSON file with the shapes of a model whose folder does not say them.
    """

    source: Annotated[Positional[str], arg(metavar="SRC")]
    destination: Annotated[Positional[Path], arg(metavar="DST")]
    arch: Path | None = None

    def run(self) -> int:
        """Converts."""
        with _progress() as progress:
            to_jax(self.source, self.destination, arch=self.arch, progress=progress)
        parts = " and ".join(f"{part}/" for part in read_configs(self.destination).parts)
        print(f"wrote {self.destination}: orbax checkpoints {parts}")
        return 0


@dataclass(frozen=True)
class ToTorch:
    """Write a release that the PyTorch runtimes load, with a model card.

    Attributes:
      source: folder made by to-jax, or a release (a trained one, to be given a card).
      destination: folder to make; must not exist, or be empty.
      dtypes: number format of the language model's tensors; keep gives the original bytes.
      shard_gb: split the weights into files of so many GB; Kyutai's own loader wants one file.
      base: checkpoint that training started from: says how much of it the release changed.
      base_model: its repository, for licence and notices; that of --base if it is on the hub.
      run_dir: folder of the training run, for the model card.
      hashes: write SHA256SUMS.
      push_to_hub: repository to upload the release to, made private if it is new.
    """

    source: Annotated[Positional[str], arg(metavar="SRC")]
    destination: Annotated[Positional[Path], arg(metavar="DST")]
    dtypes: Dtypes = "keep"
    shard_gb: float | None = None
    base: str | None = None
    base_model: str | None = None
    run_dir: Path | None = None
    hashes: bool = False
    push_to_hub: str | None = None

    def run(self) -> int:
        """Converts."""
        if self.shard_gb is not None and self.shard_gb <= 0:
            raise ValueError(f"--shard-gb is {self.shard_gb}, expected more than 0")
        options = ReleaseOptions(
            dtypes=self.dtypes,
            max_shard_bytes=None if self.shard_gb is None else int(self.shard_gb * 1e9),
            base=self.base,
            base_model=self.base_model,
            run=self.run_dir,
            hashes=self.hashes,
        )
        with _progress() as progress:
            change = to_torch(self.source, self.destination, options, progress=progress)
        print(f"wrote {self.destination}: a release")
        if change is not None:
            print(change.text)
        if self.push_to_hub is not None:
            print(f"uploaded to {push(self.destination, self.push_to_hub)}")
        return 0


@dataclass(frozen=True)
class Fuse:
    """Add adapters of moshi-finetune into their base model and write a release.

    Attributes:
      base: checkpoint folder of the base model, or hf://ORG/NAME@REVISION.
      adapters: folder with lora.safetensors and its config.json.
      destination: folder to make; must not exist, or be empty.
    """

    base: Annotated[Positional[str], arg(metavar="BASE")]
    adapters: Annotated[Positional[str], arg(metavar="ADAPTERS")]
    destination: Annotated[Positional[Path], arg(metavar="DST")]

    def run(self) -> int:
        """Fuses."""
        print(f"wrote {fuse_lora(self.base, self.adapters, self.destination)}: a release")
        return 0


@dataclass(frozen=True)
class Inspect:
    """Say what a checkpoint is; reads no values.

    Attributes:
      source: folder, safetensors file or hf://ORG/NAME@REVISION.
      arch: JSON file with the shapes of a model whose folder does not say them.
    """

    source: Annotated[Positional[str], arg(metavar="SRC")]
    arch: Path | None = None

    def run(self) -> int:
        """Prints what was found."""
        print("\n".join(inspect(self.source, arch=self.arch).lines()))
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
    | Annotated[Fuse, subcommand("fuse")]
    | Annotated[Verify, subcommand("verify")]
    | Annotated[Inspect, subcommand("inspect")]
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
