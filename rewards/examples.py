"""Worked examples: a file of inputs with the expected result of each, computed and compared.

The file is one JSON object: kind -> list of cases, `_defaults` -> kind -> parameters. A case has a
`name`, `expected`, `params` that override the defaults, and the inputs of its kind. A kind is a
function `(case, params) -> Check`; `KINDS` has those of this package.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.axes.backchannel import BackchannelConfig, backchanneling
from rewards.axes.interruption import InterruptionConfig, user_interruption
from rewards.axes.pause import PauseConfig, pause_handling
from rewards.axes.turn_taking import TurnTakingConfig, turn_taking
from rewards.dialogue import Dialogue
from rewards.judge.parse import parse_verdict

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Check:
    """What a case gives, and whether that is what it expects; both as plain values for printing."""

    expected: Any
    got: Any
    agrees: bool


Kind = Callable[[Mapping[str, Any], Mapping[str, Any]], Check]


@dataclass(frozen=True)
class Case:
    """One case of a file, checked."""

    kind: str
    name: str
    check: Check


def same_number(got: float | None, expected: float | None) -> bool:
    """Whether two values agree to 1e-9; missing (None) only with missing."""
    if got is None or expected is None:
        return got is expected
    return math.isclose(got, expected, rel_tol=0.0, abs_tol=TOLERANCE)


def check_file(path: Path, kinds: Mapping[str, Kind]) -> list[Case]:
    """Compute and compare every case of a file.

    Raises:
        ValueError: not JSON, no case, or a case that its kind cannot read; it names the case.
    """
    return check_examples(_read(path), kinds, name=str(path))


def check_examples(
    content: Mapping[str, Any], kinds: Mapping[str, Kind], *, name: str
) -> list[Case]:
    """As `check_file`, for what the file `name` holds."""
    defaults = content.get("_defaults", {})
    checked = []
    for kind, cases in content.items():
        if kind.startswith("_"):
            continue
        if kind not in kinds:
            raise ValueError(f"{name}: unknown kind {kind!r}, expected {', '.join(kinds)}")
        for number, case in enumerate(cases, 1):
            where = f"{name}: {kind} {number}"
            try:
                where = f"{name}: {kind} {case['name']}"
                params = {**defaults.get(kind, {}), **case.get("params", {})}
                check = kinds[kind](case, params)
            except KeyError as error:
                raise ValueError(f"{where}: field {error} is missing") from error
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"{where}: {error}") from error
            checked.append(Case(kind, case["name"], check))
    if not checked:
        raise ValueError(f"{name} has no case, expected kind -> list of cases")
    return checked


def are_examples(path: Path) -> bool:
    """Whether a file holds worked examples, not dialogues: an object of lists with `expected`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(content, dict) and any(
        isinstance(cases, list) and any(isinstance(c, dict) and "expected" in c for c in cases)
        for cases in content.values()
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected an object of cases")
    return content


def options(params: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """Rename the parameters of a case to the fields of a config.

    Raises:
        ValueError: a parameter is not known.
    """
    if unknown := [name for name in params if name not in fields]:
        raise ValueError(f"unknown parameter {unknown[0]!r}, expected one of {', '.join(fields)}")
    return {fields[name]: value for name, value in params.items()}


_RESPONSE_FIELDS = {
    "early": "early",
    "min_utt": "min_utterance_s",
    "run_gap": "run_gap_s",
    "utt_gap": "utterance_gap_s",
    "cross_tol": "cross_tolerance_s",
    "cap": "cap",
}
_PAUSE_FIELDS = {
    "max_speech": "max_speech_s",
    "unit": "unit",
    "run_gap": "run_gap_s",
    "utt_gap": "utterance_gap_s",
}
_INTERRUPTION_FIELDS = {
    **_RESPONSE_FIELDS,
    "early_floor": "early_floor",
    "require_prior_speech": "require_prior_speech",
    "yield_weight": "yield_weight",
    "yield_grace": "yield_grace_s",
}
_BACKCHANNEL_FIELDS = {
    "tol": "tolerance_s",
    "max_bc": "max_backchannel_s",
    "run_gap": "run_gap_s",
    "match": "match",
    "one_to_one": "one_to_one",
    "takeover_penalty": "takeover_penalty",
}


def _number(value: float | None, case: Mapping[str, Any]) -> Check:
    return Check(case["expected"], value, same_number(value, case["expected"]))


def _dialogue(case: Mapping[str, Any], **labels: Any) -> Dialogue:
    return Dialogue.from_dict(
        {"duration_s": case["duration"], "agent": case["agent_ipus"], **labels}
    )


def _pause(case: Mapping[str, Any], params: Mapping[str, Any]) -> Check:
    config = PauseConfig(**options(params, _PAUSE_FIELDS))
    return _number(pause_handling(_dialogue(case), config).value, case)


def _turn_taking(case: Mapping[str, Any], params: Mapping[str, Any]) -> Check:
    config = TurnTakingConfig(**options(params, _RESPONSE_FIELDS))
    dialogue = _dialogue(case, user_turn_end_s=case["user_turn_end"])
    return _number(turn_taking(dialogue, config).value, case)


def _user_interruption(case: Mapping[str, Any], params: Mapping[str, Any]) -> Check:
    values = options(params, _INTERRUPTION_FIELDS)
    if "early_floor" in values and values["early_floor"] is None:
        values["early_floor"] = "none"
    label = [case["interrupt_start"], case["interrupt_end"]]
    if None in label:
        label = None
    dialogue = _dialogue(case, interruption=label)
    return _number(user_interruption(dialogue, InterruptionConfig(**values)).value, case)


def _backchannel(case: Mapping[str, Any], params: Mapping[str, Any]) -> Check:
    config = BackchannelConfig(**options(params, _BACKCHANNEL_FIELDS))
    dialogue = _dialogue(case, backchannels=case["gt_backchannels"])
    return _number(backchanneling(dialogue, config).value, case)


def _judge_parse(case: Mapping[str, Any], params: Mapping[str, Any]) -> Check:
    options(params, {})
    return _number(parse_verdict(case["raw"]), case)


KINDS: dict[str, Kind] = {
    "pause": _pause,
    "turn_taking": _turn_taking,
    "user_interruption": _user_interruption,
    "backchannel": _backchannel,
    "judge_parse": _judge_parse,
}
"""Kind -> how a case of it is computed and compared."""


def table(checked: list[Case]) -> str:
    """A line a case (kind, name, expected, got, verdict) and the count of those that agree."""
    rows = [("kind", "case", "expected", "got", "")]
    for case in checked:
        verdict = "ok" if case.check.agrees else "DIFFERS"
        rows.append(
            (case.kind, case.name, plain(case.check.expected), plain(case.check.got), verdict)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    agree = sum(case.check.agrees for case in checked)
    return "\n".join([*lines, f"{agree} of {len(checked)} agree"])


def plain(value: Any) -> str:
    """JSON without the noise of floats beyond 12 digits, which the comparison does not see."""
    text = json.dumps(value)
    return re.sub(r"-?\d+\.\d{13,}(e-?\d+)?", lambda found: f"{float(found[0]):.12g}", text)
