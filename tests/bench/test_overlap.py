"""The slow scorer of the benchmark: the same rewards, later. Its figures are not asserted."""

import time

import numpy as np
import pytest

from bench import overlap
from bench.__main__ import BENCHMARKS


def test_a_slow_scorer_gives_the_same_rewards_later(monkeypatch):
    naps = []
    monkeypatch.setattr(time, "sleep", naps.append)
    monkeypatch.setattr(overlap, "score_group", lambda *a, **o: {"turn_taking": np.array([o["x"]])})
    rewards = overlap.waiting(0.5)(x=2.0)
    np.testing.assert_array_equal(rewards["turn_taking"], [2.0])
    assert naps == [0.5]


def test_options_are_refused_by_name():
    with pytest.raises(SystemExit) as stop:
        overlap.main(["--latency", "1"])
    assert stop.value.code == 2
    assert BENCHMARKS["overlap"][1] == "bench.overlap:main"
