"""The `moshi-jax` command: one table of verbs, each imported only when it is called."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from moshi_jax import __version__

__all__ = ["VERBS", "main", "verb_function"]

PROGRAM = "moshi-jax"

# verb: (what it does, "module:function"); the function is `main(argv) -> exit code`.
VERBS = {
    "demo": (
        "GRPO on the embedded nano model, before and after, in minutes on a CPU",
        "moshi_jax.demo:main",
    ),
    "convert": ("PyTorch checkpoints to JAX, back, and compared", "convert.__main__:main"),
    "codec": ("audio files to codes and back", "moshi_jax.codec:main"),
    "stream": ("a full-duplex session over an audio file", "moshi_jax.stream:main"),
    "segments": ("cut two-channel recordings into training segments", "grpo.segments_cli:main"),
    "pretrain": (
        "supervised training on recordings with transcripts",
        "moshi_jax.pretrain:main",
    ),
    "train": ("GRPO post-training", "grpo.__main__:main"),
    "score": ("rewards of stored dialogues", "moshi_jax.score:main"),
    "bench": ("what a frame costs, measured or compiled", "bench.__main__:main"),
    "export": (
        "the frame step as a file that jax and numpy alone can run",
        "moshi_jax.export:main",
    ),
    "verify": ("recorded reference cases on this device", "moshi_jax.verify:main"),
}


def verb_function(verb: str) -> Callable[[list[str]], int]:
    """Import and return the `main(argv)` behind a verb of `VERBS`."""
    module, function = VERBS[verb][1].split(":")
    return getattr(importlib.import_module(module), function)


def help_text() -> str:
    """The text of `moshi-jax --help`."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {about}" for verb, (about, _) in VERBS.items())
    return (
        f"usage: {PROGRAM} VERB [options]      {PROGRAM} VERB --help says more\n\n"
        f"{verbs}\n\n"
        "  --debug     with any verb: show the traceback of an error (or MOSHI_JAX_DEBUG=1)\n"
        "  --version   print the version\n\n"
        "exit codes: 0 ok, 1 the work failed (one line on stderr), 2 bad usage"
    )


def keep_compiled_programs() -> None:
    """Let commands share what XLA has compiled: a frame step takes it half a minute.

    Where to is JAX's own setting (empty for nowhere), and the user's cache folder if it is unset.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(home / "moshi-jax" / "compiled"))
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**31))  # bytes, oldest go first


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: the verb and its options; `sys.argv[1:]` if None.

    Returns:
        The exit code: 0 ok, 1 the work failed, 2 bad usage.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(help_text(), file=sys.stderr)
        return 2
    verb, *rest = arguments
    if verb in ("-h", "--help"):
        print(help_text())
        return 0
    if verb == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        print(
            f"{PROGRAM}: unknown verb {verb!r}, expected one of {', '.join(VERBS)}{guess}",
            file=sys.stderr,
        )
        return 2

    keep_compiled_programs()
    # Imported here, because the package around it loads JAX and the help above must not wait.
    from layers_jax.command import run_command

    return run_command(f"{PROGRAM} {verb}", verb_function(verb), rest)
