"""Rewards of dialogues stored as JSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.dialogue import Dialogue
from rewards.outcome import Fact
from rewards.registry import outcomes, rewards_for


@dataclass(frozen=True)
class Scored:
    """The rewards of one stored entry.

    Attributes:
        name: the entry's name, or its number in the file, from 1.
        axis: its axis.
        rewards: component -> value, None = missing.
        facts: component -> what its rule measured.
    """

    name: str
    axis: str
    rewards: dict[str, float | None]
    facts: dict[str, dict[str, Fact]]


def read_dialogues(path: str | Path) -> dict[str, Dialogue]:
    """The dialogues of a file that `score_file` reads, by name; their axis is not looked at.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not JSON, or an entry that is no dialogue; it names the entry.
    """
    path, dialogues = Path(path), {}
    for number, entry in enumerate(_entries(path), 1):
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: entry {number}: {entry!r} is not an object")
        fields = {name: value for name, value in entry.items() if name not in ("axis", "name")}
        try:
            dialogues[str(entry.get("name", number))] = Dialogue.from_dict(fields)
        except ValueError as error:
            raise ValueError(f"{path}: entry {number}: {error}") from error
    return dialogues


def score_file(path: str | Path, configs: Mapping[str, Any] | None = None) -> list[Scored]:
    """Score every dialogue of a file.

    The file is a JSON list of entries, or JSON Lines with an entry a line. An entry has the fields
    of `Dialogue`, an `axis` and, if wanted, a `name`::

        {"axis": "turn", "duration_s": 14, "agent": [[7.3, 11]], "user_turn_end_s": 7}

    Args:
        path: the file.
        configs: reward name -> config; a rule not named runs on its defaults.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not JSON, no entry, or an entry that is no dialogue; it names the entry.
    """
    path = Path(path)
    scored = []
    for number, entry in enumerate(_entries(path), 1):
        try:
            scored.append(_score_entry(entry, str(number), configs))
        except ValueError as error:
            raise ValueError(f"{path}: entry {number}: {error}") from error
    if not scored:
        raise ValueError(f"{path} has no entry, expected at least one dialogue")
    return scored


def _entries(path: Path) -> Iterator[object]:
    try:
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            yield from json.loads(text)
            return
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}: line {number} is not JSON: {error}") from error


def _score_entry(entry: object, name: str, configs: Mapping[str, Any] | None) -> Scored:
    if not isinstance(entry, dict):
        raise ValueError(f"{entry!r} is not an object, expected the fields of a dialogue")
    fields = dict(entry)
    axis = fields.pop("axis", None)
    if not isinstance(axis, str):
        raise ValueError(f"axis is {axis!r}, expected the name of an axis")
    rewards_for(axis)  # an unknown axis is said before an unknown field
    name = str(fields.pop("name", name))
    found = outcomes(Dialogue.from_dict(fields), axis, configs)
    return Scored(
        name=name,
        axis=axis,
        rewards={reward: outcome.value for reward, outcome in found.items()},
        facts={reward: dict(outcome.facts) for reward, outcome in found.items()},
    )
