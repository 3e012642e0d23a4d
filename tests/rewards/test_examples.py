"""The recorded worked examples, and that the comparison can fail."""

import copy
import json
from pathlib import Path

import pytest

from rewards.examples import KINDS, are_examples, check_examples, check_file, plain, same_number

GOLDEN = Path(__file__).parents[1] / "golden" / "reward_examples.json"
EXAMPLES = {
    kind: value
    for kind, value in json.loads(GOLDEN.read_text()).items()
    if kind in KINDS or kind == "_defaults"
}
CASES = check_examples(EXAMPLES, KINDS, name="examples")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.name}")
def test_example(case):
    assert case.check.agrees, case


def test_every_kind_has_cases():
    assert {case.kind for case in CASES} == set(KINDS)
    assert len(CASES) == 40


def test_every_case_can_differ():
    wrong = copy.deepcopy(EXAMPLES)
    for kind in KINDS:
        for case in wrong[kind]:
            case["expected"] = 0.5 if case["expected"] is None else case["expected"] + 1e-8
    assert not any(case.check.agrees for case in check_examples(wrong, KINDS, name="wrong"))


def test_the_rules_run_on_the_defaults_of_the_file():
    case = {"name": "a", "agent_ipus": [[1, 2.5]], "duration": 6, "expected": -1.0}
    one, two = (
        check_examples({"_defaults": defaults, "pause": [case]}, KINDS, name="x")[0]
        for defaults in ({}, {"pause": {"max_speech": 2.0}})
    )
    assert (one.check.got, one.check.agrees) == (-1.0, True)
    assert (two.check.got, two.check.agrees) == (0.0, False)


def test_the_defaults_of_the_file_are_those_of_the_rules():
    bare = copy.deepcopy(EXAMPLES)
    bare["_defaults"] = {}
    assert check_examples(bare, KINDS, name="x") == CASES


PLAIN = {"name": "a", "duration": 12.0, "expected": None}


@pytest.mark.parametrize(
    ("kind", "agent", "labels", "params", "got"),
    [
        ("pause", [[0, 0.9], [1, 1.9]], {}, {"unit": "ipu"}, 0.0),
        ("pause", [[0, 1], [1.1, 2]], {}, {"unit": "utterance", "utt_gap": 0.05}, 0.0),
        ("turn_taking", [[-4, 13]], {"user_turn_end": 3}, {"cap": False}, -7.0),
        ("user_interruption", [[1, 6.5]], {}, {}, -2.5),
        ("user_interruption", [[1, 6.5]], {}, {"early_floor": None}, -4.0),
        ("user_interruption", [[1, 6.5]], {}, {"yield_weight": 1.0}, -4.5),
        ("user_interruption", [[1, 6.5]], {}, {"yield_weight": 1.0, "yield_grace": 0.0}, -5.0),
        ("user_interruption", [[3, 4]], {}, {"require_prior_speech": True}, None),
        ("user_interruption", [], {"interrupt_start": None}, {}, None),
        ("backchannel", [[1.0, 1.6]], {}, {"match": "onset"}, 0.0),
        ("backchannel", [[1.0, 1.6]], {}, {"match": "interval"}, 1.0),
        ("backchannel", [[1, 4]], {}, {"takeover_penalty": 0.25}, -0.25),
    ],
)
def test_options(kind, agent, labels, params, got):
    case = {**PLAIN, "agent_ipus": agent, "params": params}
    if kind == "user_interruption":
        case |= {"interrupt_start": 2.5, "interrupt_end": 5.0}
    if kind == "backchannel":
        case |= {"gt_backchannels": [[2.5, 3.0]]}
    (checked,) = check_examples({kind: [case | labels]}, KINDS, name="x")
    assert checked.check.got == (None if got is None else pytest.approx(got))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "x has no case"),
        ({"singing": []}, "unknown kind 'singing', expected pause"),
        ({"pause": [{"duration": 1}]}, "x: pause 1: field 'name' is missing"),
        ({"pause": [{"name": "a"}]}, "x: pause a: field 'duration' is missing"),
        (
            {"pause": [{"name": "a", "params": {"unitt": 1}, "duration": 1, "agent_ipus": []}]},
            "x: pause a: unknown parameter 'unitt', expected one of max_speech, unit",
        ),
        (
            {"pause": [{"name": "a", "duration": 1, "agent_ipus": [[2, 1]]}]},
            "x: pause a: agent has interval",
        ),
    ],
)
def test_cases_that_cannot_be_read_are_named(content, message):
    with pytest.raises(ValueError, match=message):
        check_examples(content, KINDS, name="x")


def test_files(tmp_path):
    file = tmp_path / "f.json"
    for text, examples in [
        (json.dumps(EXAMPLES), True),
        ('{"axis": "pause", "duration_s": 6, "agent": [[1, 2]]}', False),
        ('[{"axis": "pause"}]', False),
        ("{", False),
    ]:
        file.write_text(text)
        assert are_examples(file) is examples
    with pytest.raises(ValueError, match="not JSON"):
        check_file(file, KINDS)
    file.write_text("[]")
    with pytest.raises(ValueError, match="holds a list, expected an object"):
        check_file(file, KINDS)


def test_same_number():
    assert same_number(None, None)
    assert not same_number(0.0, None)
    assert not same_number(None, 0.0)
    assert same_number(1.0, 1.0 + 9e-10)
    assert not same_number(1.0, 1.0 + 2e-9)


def test_plain_leaves_out_the_rounding_of_floats():
    assert plain([-0.2999999999999998, 2.5, None, 1]) == "[-0.3, 2.5, null, 1]"
