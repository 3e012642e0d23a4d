"""One error policy for every command of the project.

Wrong input is not a crash: it is one line on stderr and exit code 1. A programming error keeps its
traceback. Standard library only, so that `python -m convert --help` pays for nothing else.
"""

import os
import sys
import traceback
from collections.abc import Callable, Sequence

__all__ = ["DEBUG_VARIABLE", "one_line", "run_command"]

DEBUG_VARIABLE = "MOSHI_JAX_DEBUG"

OK, FAILED, INTERRUPTED = 0, 1, 130


def one_line(error: BaseException) -> str:
    """Say an exception in a single line; a multi-line message is joined with `; `."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines) or type(error).__name__


def run_command(
    name: str, main: Callable[[list[str]], int], argv: Sequence[str] | None = None
) -> int:
    """Run a command's `main(argv)` and turn its outcome into an exit code.

    Args:
        name: what the user typed, for usage and error lines (`"moshi-jax stream"`).
        main: takes the arguments, returns 0 when the work succeeded and 1 when it did not.
        argv: arguments without the program name; `sys.argv[1:]` if None. A `--debug` anywhere in
            it is taken out and asks for tracebacks, as MOSHI_JAX_DEBUG=1 does.

    Returns:
        `main`'s own code; 1 and one line on stderr for ValueError, OSError, and the ImportError
        that asks for an extra; 2 for bad usage (argparse's exit); 130 for an interrupt.
        Any other exception is a bug and is raised.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0") or "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    shell_argv, sys.argv = sys.argv, [name, *arguments]  # argparse takes the usage line from here
    try:
        return main(arguments)
    except SystemExit as stop:
        return _exit_code(stop)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`| head`): the interpreter's last flush must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ValueError, OSError, ImportError) as error:
        # Python names the module when an import fails; ours, raised to name an extra, does not.
        if isinstance(error, ImportError) and error.name is not None:
            raise
        if debug:
            traceback.print_exc()
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return FAILED
    finally:
        sys.argv = shell_argv


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None:
        return OK
    if isinstance(stop.code, int):
        return stop.code
    print(stop.code, file=sys.stderr)
    return FAILED
