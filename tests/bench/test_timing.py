import time

import numpy as np
import pytest

from bench import Samples, alternate


def test_contestants_take_turns_after_their_warmup():
    calls = []
    work = {name: lambda name=name: calls.append(name) for name in "ab"}
    samples = alternate(work, rounds=3, warmup=2)
    assert "".join(calls) == "aabb" + "ab" * 3
    assert {name: len(s.wall_s) for name, s in samples.items()} == {"a": 3, "b": 3}


def test_waiting_is_wall_time_and_not_processor_time():
    (slept,) = alternate({"sleep": lambda: time.sleep(0.05)}, rounds=3, warmup=0).values()
    assert slept.median_ms >= 50
    assert slept.median_cpu_ms < slept.median_ms


def test_quantiles_are_of_the_calls():
    samples = Samples(np.array([0.001, 0.002, 0.003, 0.1]), np.array([0.004, 0.004, 0.1, 0.001]))
    assert samples.median_ms == pytest.approx(2.5)
    assert samples.quantile_ms(1) == pytest.approx(100)
    assert samples.median_cpu_ms == pytest.approx(4)


@pytest.mark.parametrize(("contestants", "rounds"), [({}, 1), ({"a": lambda: None}, 0)])
def test_nothing_to_time_is_refused(contestants, rounds):
    with pytest.raises(ValueError, match="expected at least 1 of each"):
        alternate(contestants, rounds=rounds)
