"""The benchmark of the detector: its peers hear the same, and its exit code means something."""

import importlib.util

import numpy as np
import pytest

import bench.vad
from bench.__main__ import main
from layers_jax.command import run_command

if importlib.util.find_spec("silero_vad") is None:
    pytest.skip("silero-vad is not installed", allow_module_level=True)
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.parity

SHORT = ["vad", "--seconds", "3", "--rounds", "1", "--core", "-1"]


def test_it_prints_both_peers_and_finds_no_flip(capsys):
    assert main(SHORT) == 0
    lines = capsys.readouterr().out.splitlines()
    ours, sequence, hop = lines[-3:]
    assert ours.startswith("rewards.vad")
    for line, name in ((sequence, "sequence graph"), (hop, "hop by hop")):
        assert name in line
        ratio, difference, flips = line.split()[-3:]
        assert float(ratio.rstrip("x")) > 0
        assert 0 < float(difference) < 2e-5
        assert flips == "0"


def test_a_flip_is_a_failure(capsys, monkeypatch):
    monkeypatch.setattr(bench.vad, "hop_peer", lambda: lambda row: np.ones(-(-len(row) // 512)))
    assert main(SHORT) == 1


def test_without_the_peer_there_is_no_benchmark(capsys, monkeypatch):
    monkeypatch.setattr("rewards.extract_silero.importlib.util.find_spec", lambda name: None)
    assert run_command("bench", main, SHORT) == 1
    assert "silero-vad is not installed" in capsys.readouterr().err
