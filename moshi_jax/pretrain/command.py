"""`moshi-jax pretrain encode`: recordings to tokens; `... train`: a model that learns them."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from grpo.tracking import log_progress
from layers_jax.command import run_command
from moshi_jax.pretrain.config import PretrainConfig
from moshi_jax.pretrain.encode import EncodeConfig, encode_corpus
from moshi_jax.pretrain.train import LOGGER, pretrain

__all__ = ["main"]

_MOST_BAD = 10  # recordings that could not be used and are printed


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `encode` or `train`.

    Args:
        argv: `sys.argv[1:]` if None.

    Returns:
        0.

    Raises:
        ValueError, OSError: as `encode_corpus` and `pretrain`; `run_command` makes them one line.
        SystemExit: 2 for bad usage, 0 for `--help`.
    """
    verbs: dict[str, Callable[..., Any]] = {"encode": EncodeConfig, "train": PretrainConfig}
    config = tyro.extras.subcommand_cli_from_dict(
        verbs, args=argv, prog="moshi-jax pretrain", config=(tyro.conf.FlagCreatePairsOff,)
    )
    log_progress()
    log_progress(LOGGER)
    if isinstance(config, EncodeConfig):
        made = encode_corpus(config, progress=_say)
        for bad in made.bad_files[:_MOST_BAD]:
            print(f"skipped {bad.name}: {bad.reason}", file=sys.stderr)
        if (more := len(made.bad_files) - _MOST_BAD) > 0:
            print(f"skipped {more} more, all in summary.json", file=sys.stderr)
        print(
            f"{made.recordings} recordings, {made.hours:.3f} h, {made.words} words of the agent; "
            f"wrote {config.destination}"
        )
        return 0
    pretrain(config)
    print(f"exported {config.run_dir / 'export'}, metrics in {config.run_dir / 'metrics.jsonl'}")
    return 0


def _say(done: int, total: int) -> None:
    print(f"encoded {done} of {total} shard(s)", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(run_command("python -m moshi_jax.pretrain.command", main))
