"""The gate between a run and its judge: opened by name, decided before every epoch, closed."""

from pathlib import Path

import pytest

from grpo.config import GRPOConfig
from grpo.judge_gate import JudgeGate, open_judge_gate
from rewards.asr import AsrConfig
from rewards.judge import JudgeConfig, RemoteConfig

PATHS = {"checkpoint": Path("model"), "segments": Path("segments"), "run_dir": Path("run")}


class Judge:
    name, exhausted, is_there, closed = "fake", False, True, False

    def submit(self, cases):
        raise AssertionError("nobody asks")

    def available(self):
        return self.is_there

    def close(self):
        self.closed = True


class Recognizer:
    name, version = "fake", "1"

    def transcribe(self, batch):
        raise AssertionError("nobody listens")


@pytest.fixture
def opened(monkeypatch):
    """What `open_judge` was asked for, and the judge it gave."""
    asked, judge = [], Judge()

    def open_judge(config):
        asked.append(config)
        return judge

    monkeypatch.setattr("grpo.judge_gate.open_judge", open_judge)
    monkeypatch.setattr("grpo.judge_gate.open_recognizer", lambda config: Recognizer())
    return asked, judge


def config(outage="defer", **remote):
    remote = RemoteConfig(urls=("http://127.0.0.1:9/v1",), model="m", outage=outage, **remote)
    return GRPOConfig(
        **PATHS, judge=JudgeConfig(kind="remote", remote=remote), asr=AsrConfig(kind="packaged")
    )


def test_no_judge_no_gate(tmp_path):
    with open_judge_gate(GRPOConfig(**PATHS), tmp_path) as gate:
        assert gate.scoring == {}
        assert gate.before_epoch() is None
    assert list(tmp_path.iterdir()) == []
    assert JudgeGate().before_epoch() is None


def test_it_keeps_what_was_said_in_the_run_folder_and_closes(tmp_path, opened):
    asked, judge = opened
    with open_judge_gate(config(), tmp_path) as gate:
        assert gate.scoring["scorer"].listens
        assert gate.before_epoch() is None
    assert judge.closed
    assert asked[0].remote.cache == tmp_path / "judge-0.sqlite"
    assert (tmp_path / "transcripts-0.sqlite").exists()
    with open_judge_gate(config(cache=tmp_path / "mine"), tmp_path):
        assert asked[1].remote.cache == tmp_path / "mine"


def test_an_outage_is_decided_by_the_policy(tmp_path, opened):
    _, judge = opened
    judge.is_there = False
    with open_judge_gate(config("defer"), tmp_path) as gate:
        scorer = gate.scoring["scorer"]
        assert [gate.before_epoch() for _ in range(3)] == [None] * 3
        assert scorer.decision.draw == "without judge"
        assert "3 epochs without it are over" in gate.before_epoch()
        judge.is_there = True
        assert gate.before_epoch() is None
        assert scorer.decision.draw == "all"
    judge.is_there = False
    with open_judge_gate(config("abort"), tmp_path) as gate:
        assert "abort" in gate.before_epoch()
    with open_judge_gate(config("degrade"), tmp_path) as gate:
        assert gate.before_epoch() is None
        assert gate.scoring["scorer"].decision.judge is False


def test_a_used_up_budget_ends_the_run_under_every_policy(tmp_path, opened):
    opened[1].exhausted = True
    for policy in ("defer", "block", "degrade", "abort"):
        with open_judge_gate(config(policy), tmp_path) as gate:
            assert "budget is used up" in gate.before_epoch()
