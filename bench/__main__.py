"""`python -m bench WHAT`, also `moshi-jax bench WHAT`: one table of benchmarks."""

import importlib
import sys
from collections.abc import Sequence

from layers_jax.command import run_command

__all__ = ["BENCHMARKS", "main"]

# name: (what it measures, "module:function"); the function is `main(argv) -> exit code`.
BENCHMARKS: dict[str, tuple[str, str]] = {
    "step": ("the frame step on this device: latency, memory, counts", "bench.step:main"),
    "compare": ("two reports of `step`: what got slower or larger", "bench.compare:main"),
    "convert": ("memory and speed of a conversion, beside a plain copy", "bench.conversion:main"),
    "vad": ("the voice activity detector, beside onnxruntime on one core", "bench.vad:main"),
    "segments": ("files to segments, beside the usual way to listen", "bench.segments:main"),
    "robustness": ("rewards when the user's audio is not clean", "bench.robustness:main"),
    "overlap": ("what a slow judge adds to an epoch of training", "bench.overlap:main"),
    "plan": ("does a described pod hold a GRPO run, and an epoch's bound", "bench.plan:main"),
    "aot": ("the step compiled for TPUs and GPUs that are not here", "bench.aot:main"),
    "precision": ("what bf16 and int8 weights cost in probabilities", "bench.precision:main"),
    "machine": ("what this machine is, as every benchmark reports it", "bench.__main__:machine"),
    "mimi": ("a frame and a file through the codec, here and in other runtimes", "bench.mimi:main"),
}


def machine(argv: Sequence[str]) -> int:
    """Prints the description of this machine."""
    from bench.machine import describe_machine

    for name, value in describe_machine(*argv).items():
        print(f"{name:<12} {value}")
    return 0


def help_text() -> str:
    """The text of `--help`."""
    width = max(map(len, BENCHMARKS))
    lines = "\n".join(f"  {name:<{width}}  {about}" for name, (about, _) in BENCHMARKS.items())
    program = sys.argv[0]  # as the user typed it: `run_command` puts it there
    return f"usage: {program} WHAT [options]      {program} WHAT --help says more\n\n{lines}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one benchmark.

    Returns:
        Its exit code; 2 for an unknown benchmark.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if not arguments or arguments[0] not in BENCHMARKS:
        got = repr(arguments[0]) if arguments else "nothing"
        print(f"{sys.argv[0]}: got {got}, expected one of {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    module, function = BENCHMARKS[arguments[0]][1].split(":")
    return getattr(importlib.import_module(module), function)(arguments[1:])


if __name__ == "__main__":
    sys.exit(run_command("python -m bench", main))
