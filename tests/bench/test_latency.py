import time

import jax
import numpy as np

from bench.latency import Latency, measure, measured_bandwidth, uncached


def test_warm_up_is_left_out_and_every_call_is_timed():
    durations = iter([0.05, 0.05, 0.001, 0.001, 0.02])

    def call():
        time.sleep(next(durations))
        return np.zeros(1)

    latency = measure(call, frames=3, warmup=2)
    assert len(latency.frame_s) == 3
    assert latency.frame_s.max() >= 0.02 and np.median(latency.frame_s) < 0.02
    assert (latency.dispatch_s <= latency.frame_s).all()
    assert 0 < latency.harness_s < 1e-3


def test_quantiles_are_those_of_the_frames():
    latency = Latency(np.arange(1, 101) / 1000, np.zeros(100), 0.0)
    found = latency.quantiles_ms()
    assert list(found) == ["p50", "p90", "p95", "p99", "max"]
    assert found["max"] == 100 and 50 <= found["p50"] <= 51 and 99 <= found["p99"] <= 100


def test_bandwidth_is_read_and_not_made_up(monkeypatch):
    clock = iter(np.arange(0, 1000, 0.5))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    assert measured_bandwidth(1) == 2**20 / 0.5


def test_the_cache_is_off_inside_the_block_only():
    before = jax.config.values["jax_enable_compilation_cache"]
    with uncached():
        assert not jax.config.values["jax_enable_compilation_cache"]
    assert jax.config.values["jax_enable_compilation_cache"] == before
