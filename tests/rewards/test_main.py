import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rewards.__main__ import main, run

ROOT = Path(__file__).parents[2]
DIALOGUES = """\
{"name": "early", "axis": "turn", "duration_s": 14, "agent": [[6.5, 11]], "user_turn_end_s": 7}
{"name": "late", "axis": "turn", "duration_s": 14, "agent": [[8.5, 11]], "user_turn_end_s": 7}
{"name": "unlabelled", "axis": "turn", "duration_s": 14}
{"axis": "pause", "duration_s": 6}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "dialogues.jsonl"
    path.write_text(DIALOGUES)
    return str(path)


def test_table(file, capsys):
    assert main([file]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["entry", "axis", "reward", "value"],
        ["early", "turn", "turn_taking", "-0.500"],
        ["late", "turn", "turn_taking", "-1.500"],
        ["unlabelled", "turn", "turn_taking", "-"],
        ["4", "pause", "pause_handling", "0.000"],
        ["mean", "of", "2", "turn", "turn_taking", "-1.000"],
        ["mean", "of", "1", "pause", "pause_handling", "0.000"],
    ]


def test_jsonl_with_options_of_a_rule(file, capsys):
    assert main([file, "--format", "jsonl", "--rules.turn-taking.early", "clamp"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.pop("facts") for line in lines][:3] == [
        {"turn_taking": {"rule": "early", "onset_s": 6.5, "delay_s": 0.0}},
        {"turn_taking": {"rule": "after", "onset_s": 8.5, "delay_s": 1.5}},
        {"turn_taking": {"rule": "no label user_turn_end_s"}},
    ]
    assert lines == [
        {"name": "early", "axis": "turn", "rewards": {"turn_taking": 0.0}},
        {"name": "late", "axis": "turn", "rewards": {"turn_taking": -1.5}},
        {"name": "unlabelled", "axis": "turn", "rewards": {"turn_taking": None}},
        {"name": "4", "axis": "pause", "rewards": {"pause_handling": 0.0}},
    ]


EXAMPLES = {
    "_defaults": {"pause": {"max_speech": 2.0}},
    "pause": [{"name": "a", "agent_ipus": [[1, 2.5]], "duration": 6, "params": {}, "expected": 0}],
    "judge_parse": [{"name": "b", "raw": "two", "params": {}, "expected": None}],
}


@pytest.mark.parametrize(("expected", "code", "verdict"), [(None, 0, "ok"), (0, 1, "DIFFERS")])
def test_worked_examples_are_compared(tmp_path, capsys, expected, code, verdict):
    file = tmp_path / "examples.json"
    EXAMPLES["judge_parse"][0]["expected"] = expected
    file.write_text(json.dumps(EXAMPLES))
    assert main([str(file)]) == code
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["kind", "case", "expected", "got"],
        ["pause", "a", "0", "0.0", "ok"],
        ["judge_parse", "b", json.dumps(expected), "null", verdict],
        [str(2 - code), "of", "2", "agree"],
    ]


OWN_AXIS = """
from dataclasses import dataclass
from rewards import Outcome, register

@dataclass(frozen=True, kw_only=True)
class GreetingConfig:
    within_s: float = 1.0

@register("greeting", axes=("greeting",), config=GreetingConfig)
def greeting(dialogue, config=GreetingConfig()):
    return Outcome(float(bool(dialogue.agent) and dialogue.agent[0][0] <= config.within_s))
"""


def test_an_axis_of_a_users_own_module(tmp_path):
    """In a process of its own: nothing can unregister an axis."""
    (tmp_path / "my_axes.py").write_text(OWN_AXIS)
    (tmp_path / "stored.jsonl").write_text(
        '{"axis": "greeting", "duration_s": 6, "agent": [[0.5, 2]]}'
    )

    def score(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "rewards", "stored.jsonl", "--format", "jsonl", *arguments],
            capture_output=True, text=True, check=False, cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    refused = score()
    assert refused.returncode == 1
    assert "no reward for axis 'greeting'" in refused.stderr
    by_path = score("--module", "my_axes.py", "--rules.greeting.within-s", "0.25")
    assert by_path.returncode == 0, by_path.stderr
    assert json.loads(by_path.stdout)["rewards"] == {"greeting": 0.0}


def test_help_names_the_rules_and_leaves_with_0(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "--rules.pause-handling.max-speech-s" in text
    assert "user_turn_end_s" in text


@pytest.mark.parametrize("arguments", [[], ["a.json", "--format", "xml"], ["a", "b"]])
def test_bad_usage_leaves_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert capsys.readouterr().err


def test_run_turns_an_error_into_one_line(tmp_path, monkeypatch, capsys):
    bad = tmp_path / "bad.json"
    bad.write_text('{"axis": "pause"}')
    monkeypatch.setattr(sys, "argv", ["anything", str(bad)])
    assert run() == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (f"python -m rewards: {bad}: entry 1: field 'duration_s' is missing\n")


def test_run_hands_on_success(file, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["anything", file])
    assert run() == 0
    assert "turn_taking" in capsys.readouterr().out


def test_as_a_program(tmp_path):
    missing = str(tmp_path / "none.json")
    done = subprocess.run(
        [sys.executable, "-m", "rewards", missing],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert missing in done.stderr
