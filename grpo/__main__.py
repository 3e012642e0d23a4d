"""`python -m grpo`: GRPO training from the command line; `report RUN` shows how a run went."""

import sys
from collections.abc import Sequence

import tyro

from grpo import report
from grpo.config import GRPOConfig
from grpo.tracking import log_progress
from grpo.train import train
from layers_jax.command import run_command


def parse(argv: Sequence[str] | None = None) -> GRPOConfig:
    """The configuration that flags give; a switch has no opposite flag, leaving it out is that.

    Raises:
        SystemExit: 2 for bad usage, 0 for `--help`.
    """
    switches = (tyro.conf.FlagCreatePairsOff,)
    return tyro.cli(GRPOConfig, args=argv, description=__doc__, config=switches)


def main(argv: Sequence[str] | None = None) -> int:
    """Train with the configuration given by flags; `report RUN` writes the curves of a run.

    Args:
        argv: `sys.argv[1:]` if None.

    Returns:
        0.

    Raises:
        ValueError, OSError: as `train`; `run_command` makes them one line.
        SystemExit: 2 for bad usage, 0 for `--help`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["report"]:
        return report.main(arguments[1:])
    config = parse(arguments)
    log_progress()
    result = train(config)
    print(f"exported {result.export}, metrics in {result.metrics}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m grpo", main))
