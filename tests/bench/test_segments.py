"""The benchmark of the extraction: it measures both, on the same file."""

import importlib.util
import re

import pytest

from bench.__main__ import main

if importlib.util.find_spec("silero_vad") is None:
    pytest.skip("silero-vad is not installed", allow_module_level=True)
for package in ("onnxruntime", "soundfile", "soxr"):
    pytest.importorskip(package)
pytestmark = pytest.mark.parity


def test_it_prints_the_speed_of_both_and_their_ratio(capsys):
    short = ["--minutes", "0.5", "--files", "2", "--workers", "1", "--rounds", "1"]
    assert main(["segments", *short, "--sample-rate", "16000"]) == 0
    printed = capsys.readouterr().out
    assert "audio        2 x 30 s, 2 channels of 16000 Hz" in printed
    segments = int(re.search(r"segments +(\d+)", printed)[1])
    assert segments >= 4
    ours, theirs = (
        [float(value) for value in re.search(rf"{name} +(\d+) +(\d+)", printed).groups()]
        for name in ("here", "soundfile, soxr, onnxruntime")
    )
    wall, cpu = (float(value) for value in re.findall(r"([\d.]+) x in", printed))
    assert wall == pytest.approx(ours[0] / theirs[0], rel=0.1)
    assert cpu == pytest.approx(ours[1] / theirs[1], rel=0.1)
