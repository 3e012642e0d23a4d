"""Worked examples of advantages and segment extraction, and that the comparison can fail."""

import copy
import json
from pathlib import Path

import pytest

from grpo.examples import KINDS
from rewards.examples import check_examples

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


def advantages(components, expected, **params):
    case = {"name": "a", "components": components, "params": params, "expected": expected}
    return check_examples({"advantages": [case]}, KINDS, name="x")[0].check


def test_advantages_agree_to_the_digits_they_are_written_with():
    assert advantages([[1, 3]], [-0.9999, 0.9999]).agrees
    assert advantages([[1, 3]], [-0.9999000099990001, 0.9999000099990001]).agrees
    assert not advantages([[1, 3]], [-0.9999000199, 0.9999000199]).agrees
    assert not advantages([[1, 3]], [-0.9998, 0.9999]).agrees
    assert not advantages([[1, 3]], [-1, 1]).agrees
    assert not advantages([[1, 3]], [0, 0.9999]).agrees
    assert not advantages([[1, 3]], [-0.9999]).agrees


def test_parameters_of_advantages():
    assert advantages([[1, 3]], [-1, 1], eps=0).agrees
    assert advantages([[1, 3]], [-0.5, 0.5], eps=0, weights=0.5).agrees
    assert advantages([[1, 3], [0, 4]], [1, -1], eps=0, weights=[-2, 1]).agrees
    assert advantages([[1, 3]], [-0.7071, 0.7071], eps=0, std="sample (ddof 1)").agrees
    assert advantages([[1, 3]], [0, 0], min_std=1.0).agrees
    assert advantages([[1, 3]], [-1, 1], estimator="drgrpo").agrees
    with pytest.raises(ValueError, match="std is 'wide', expected a text with"):
        advantages([[1, 3]], [0, 0], std="wide")


def test_every_extraction_can_differ():
    wrong = copy.deepcopy(EXAMPLES)
    for case in wrong["segment_extraction"]:
        for segment in case["expected"]:
            segment["end"] += 1e-6
        if not case["expected"]:
            case["expected"] = [{"axis": "turn", "start": 0, "end": 1}]
    cases = check_examples(wrong, KINDS, name="x")
    assert not any(c.check.agrees for c in cases if c.kind == "segment_extraction")


@pytest.mark.parametrize(
    "label", [{}, {"int_start": 8}, {"interrupt_start": 8, "interrupt_end": 12}]
)
def test_an_interruption_and_its_labels(label):
    case = {
        "name": "a",
        "x_ipus": [[0, 4], [8, 12]],
        "y_ipus": [[4.5, 9], [12.4, 16]],
        "params": {"tau": {"pause": 30}},
        "expected": [{"axis": "int", "start": 0, "end": 16.0, **label}],
    }
    (checked,) = check_examples({"segment_extraction": [case]}, KINDS, name="x")
    assert checked.check.agrees
    case["expected"][0]["int_end"] = 12.5
    (checked,) = check_examples({"segment_extraction": [case]}, KINDS, name="x")
    assert not checked.check.agrees


def test_a_segment_that_nobody_expects_differs():
    turn = {"name": "a", "x_ipus": [[0, 6]], "y_ipus": [[6.3, 12]], "expected": []}
    (checked,) = check_examples({"segment_extraction": [turn]}, KINDS, name="x")
    assert not checked.check.agrees
