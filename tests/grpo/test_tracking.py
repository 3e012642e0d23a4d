"""The run folder: whose it is, one metrics line an epoch, readable after a crash."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from grpo.config import GRPOConfig
from grpo.tracking import JsonlTracker, open_run, read_metrics, summarise


def test_the_folder_gets_the_resolved_config(tmp_path):
    config = GRPOConfig(checkpoint=Path("m"), segments=Path("s"), run_dir=tmp_path / "new" / "run")
    assert open_run(config) == config.run_dir
    assert GRPOConfig.from_json((config.run_dir / "config.json").read_text()) == config


def test_a_run_with_other_settings_is_refused(tmp_path):
    config = GRPOConfig(checkpoint=Path("m"), segments=Path("s"), run_dir=tmp_path)
    open_run(config)
    with pytest.raises(ValueError, match=r"other settings \(epochs, seed\); use its settings"):
        open_run(dataclasses.replace(config, epochs=9, seed=1))
    assert json.loads((tmp_path / "config.json").read_text())["epochs"] == config.epochs


def test_a_run_may_continue_on_other_devices(tmp_path):
    config = GRPOConfig(checkpoint=Path("m"), segments=Path("s"), run_dir=tmp_path, devices=8)
    open_run(config)
    open_run(dataclasses.replace(config, devices=2))
    assert json.loads((tmp_path / "config.json").read_text())["devices"] == 2


def test_lines_are_written_as_they_come(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with JsonlTracker(path) as tracker:
        tracker.log(0, {"kl": 0.5, "rewards/turn": float("nan")})
        assert read_metrics(path) == [{"epoch": 0, "kl": 0.5, "rewards/turn": None}]
        tracker.log(1, {"kl": float(np.float32(0.25))})
    assert [record["kl"] for record in read_metrics(path)] == [0.5, 0.25]


def test_a_continued_run_repeats_no_epoch(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with JsonlTracker(path) as tracker:
        for epoch in range(4):
            tracker.log(epoch, {"kl": 1.0})
    with JsonlTracker(path, first_epoch=2) as tracker:
        tracker.log(2, {"kl": 2.0})
    assert [(r["epoch"], r["kl"]) for r in read_metrics(path)] == [(0, 1.0), (1, 1.0), (2, 2.0)]


def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0, "kl": 1.0}\n{"epoch": 1, "k')
    assert read_metrics(path) == [{"epoch": 0, "kl": 1.0}]


def test_summary_takes_means_and_extremes():
    updates = [
        {"kl": 1.0, "is_ratio/max": 1.5, "is_ratio/min": 0.9},
        {"kl": 3.0, "is_ratio/max": 1.2, "is_ratio/min": 0.7},
    ]
    assert summarise(updates) == {"kl": 2.0, "is_ratio/max": 1.5, "is_ratio/min": 0.7}
