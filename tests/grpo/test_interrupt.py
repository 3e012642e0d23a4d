"""A run that is killed at random, or spread over processes, ends as the undisturbed one."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from convert import load_moshi
from grpo.extract import ExtractConfig, extract
from grpo.tracking import read_metrics
from moshi_jax.sample import conversation_path
from moshi_jax.stream import embedded_checkpoint

EPOCHS, GROUPS, GENERATIONS = 4, 2, 2
CLOCK = ("time/", "rollout_frames_per_s")


@pytest.fixture(scope="module")
def segments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "segments"
    extract(conversation_path(), folder, ExtractConfig(axes=("pause", "turn")))
    return folder


def command(segments, run_dir, *more):
    options = {
        "--checkpoint": embedded_checkpoint(),
        "--segments": segments,
        "--run-dir": run_dir,
        "--epochs": EPOCHS,
        "--groups-per-epoch": GROUPS,
        "--num-generations": GENERATIONS,
        "--prefix-silence-s": 0.4,
        "--bucket-frames": 416,
        "--precision": "f32",
        "--checkpoint-every": 1,
        "--optimizer.learning-rate": 1e-4,
    }
    flags = [str(part) for pair in options.items() for part in pair]
    return [
        sys.executable,
        "-m",
        "grpo",
        *flags,
        "--no-context",
        "--no-judge",
        "--axes",
        "pause",
        "turn",
        *more,
    ]


def environment(devices):
    return {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}


def run(*arguments, devices=2, **options):
    done = subprocess.run(
        command(*arguments), env=environment(devices), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def undisturbed(segments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(segments, folder)
    return folder


def outcome(run_dir):
    records = [
        {name: value for name, value in record.items() if not name.startswith(CLOCK)}
        for record in read_metrics(run_dir / "metrics.jsonl")
    ]
    return records, load_moshi(run_dir / "export")[1]


def assert_same(one, two, tolerance=0.0):
    import jax

    (records, params), (others, other_params) = outcome(one), outcome(two)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(other_params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    assert [record["epoch"] for record in records] == list(range(EPOCHS))
    for record, other in zip(records, others, strict=True):
        assert record.keys() == other.keys()
        for name, value in record.items():
            if value is None or other[name] is None or tolerance == 0:
                assert value == other[name], name
            elif "probs_pearson" not in name:
                assert value == pytest.approx(other[name], rel=1e-3, abs=1e-4), name


@pytest.mark.slow
def test_ten_kills_at_random_points_change_nothing(segments, undisturbed, tmp_path):
    """kill -9, each a random while after the run has begun to move; it starts again every time."""
    rng, folder, kills = random.Random(0), tmp_path / "run", 0
    while kills < 10:
        process = subprocess.Popen(
            command(segments, folder),
            env=environment(2),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(2, 12))
        if process.poll() is not None:  # it was faster: the rest of the kills find it finished
            assert process.returncode == 0
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills > 0
    run(segments, folder)
    assert_same(folder, undisturbed)


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("mapping", [(), ("--mapping", "shard_map", "--mesh-shape", "2", "1")])
def test_two_processes_are_one(mapping, segments, undisturbed, tmp_path):
    """One device each, found over loopback, against one process with two."""
    folder, port = tmp_path / "run", free_port()
    processes = [
        subprocess.Popen(
            command(
                segments, folder, *mapping,
                "--distributed.coordinator", f"localhost:{port}",
                "--distributed.num-processes", "2", "--distributed.process-id", str(number),
            ),
            env=environment(1), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    errors = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)[-3000:]
    assert_same(folder, undisturbed, tolerance=1e-6)
    assert json.loads(Path(folder / "config.json").read_text())["distributed"]["num_processes"] == 2
