"""`python -m rewards FILE`: rewards of stored dialogues, also `moshi-jax score FILE`.

A file of worked examples (`rewards.examples`) is computed and compared instead.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rewards import REWARDS, Scored, load_module, score_file
from rewards.examples import KINDS, Kind, are_examples, check_file
from rewards.examples import table as examples_table


def rules() -> Any:
    """The rules' own options, from the registry: a new rule has its options here at once."""
    return make_dataclass(
        "Rules",
        [(r.name, r.config, field(default_factory=r.config)) for r in REWARDS.values()],
        frozen=True,
        kw_only=True,
    )


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Rewards of stored dialogues: a table, or a JSON object a line.

    FILE is a JSON list of entries, or JSON Lines. Times are seconds from the start of the segment:

      {"axis": "turn", "duration_s": 14, "agent": [[7.3, 11]], "user_turn_end_s": 7}

    Further fields: "name", "user", "interruption" [start, end], "backchannels". A reward that the
    labels of an entry do not determine is missing: "-" in the table, null in JSON.

    A FILE of worked examples is one JSON object, kind -> cases with "expected" and "params": every
    case is computed, printed beside what it expects, and the exit code is 1 if one differs.
    """

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """The dialogues."""
    format: Literal["table", "jsonl"] = "table"
    """What is printed; jsonl has also what each rule measured."""
    module: tuple[str, ...] = ()
    """Modules of one's own that register rewards: dotted names, or paths of .py files."""


def table(scored: Sequence[Scored]) -> str:
    """One line a reward, aligned, and the mean of every component that is not missing."""
    rows = [("entry", "axis", "reward", "value")]
    values: dict[tuple[str, str], list[float]] = {}
    for entry in scored:
        for name, value in entry.rewards.items():
            rows.append((entry.name, entry.axis, name, "-" if value is None else f"{value:.3f}"))
            values.setdefault((entry.axis, name), []).extend([] if value is None else [value])
    for (axis, name), known in values.items():
        mean = f"{sum(known) / len(known):.3f}" if known else "-"
        rows.append((f"mean of {len(known)}", axis, name, mean))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([*map(str.ljust, row[:3], widths), row[3].rjust(widths[3])]) for row in rows
    )


def main(argv: Sequence[str] | None = None, kinds: Mapping[str, Kind] = KINDS) -> int:
    """Score one file and print the result.

    Args:
        argv: `sys.argv[1:]` if None.
        kinds: the worked examples that are known.

    Returns:
        0; 1 if a worked example differs from what it expects.

    Raises:
        ValueError, OSError: as `score_file` and `check_file`.
        SystemExit: 2 for bad usage, 0 for `--help`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for module in _modules(arguments):  # before the options are read: they are options, too
        load_module(module)
    all_rules = rules()
    full: Any = make_dataclass(
        "ScoreConfig",
        [("rules", all_rules, field(default_factory=all_rules))],
        bases=(ScoreConfig,),
        namespace={"__doc__": ScoreConfig.__doc__},
        frozen=True,
        kw_only=True,
    )
    config = tyro.cli(full, args=arguments, prog=None)
    if are_examples(config.file):
        checked = check_file(config.file, kinds)
        print(examples_table(checked))
        return 0 if all(case.check.agrees for case in checked) else 1
    configs = {name: getattr(config.rules, name) for name in REWARDS}
    scored = score_file(config.file, configs)
    if config.format == "table":
        print(table(scored))
    else:
        for entry in scored:
            print(json.dumps(asdict(entry)))
    return 0


def _modules(arguments: Sequence[str]) -> list[str]:
    """The values of `--module`."""
    found: list[str] = []
    if "--module" in arguments:
        for argument in arguments[arguments.index("--module") + 1 :]:
            if argument.startswith("--"):
                break
            found.append(argument)
    return found


def run() -> int:
    """`main` as a program: an error is one line on stderr and exit code 1."""
    sys.argv[0] = "python -m rewards"
    try:
        return main()
    except (ValueError, OSError) as error:
        print(f"python -m rewards: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run())
