"""The robustness table: what it says, and one that is really measured."""

import json

import pytest

from bench.robustness import main, table

RESULTS = {
    "clean": {"base": {"turn/turn_taking": -0.5, "pause/pause_handling": -0.25}},
    "white 10 dB SNR": {"base": {"turn/turn_taking": -0.75}},
}


def test_the_table_says_the_change_from_clean_audio():
    header, clean, noisy = table(RESULTS).splitlines()
    assert header.split() == [
        "condition",
        "base",
        "pause/pause_handling",
        "base",
        "turn/turn_taking",
    ]
    assert clean.split() == ["clean", "-0.250", "-0.500"]
    assert noisy.split() == ["white", "10", "dB", "SNR", "missing", "-0.750", "(-0.250)"]


@pytest.mark.slow
def test_the_embedded_checkpoint_under_noise(tmp_path, capsys):
    pytest.importorskip("soundfile")
    pytest.importorskip("soxr")
    from pathlib import Path

    from grpo.extract import ExtractConfig, extract

    package = Path(__file__).resolve().parents[2] / "moshi_jax"
    config = ExtractConfig(axes=("pause",))
    extract(package / "sample" / "conversation.flac", tmp_path / "segments", config)
    argv = [
        *("--checkpoint", str(package / "nano"), "--segments", str(tmp_path / "segments")),
        *("--kinds", "telephone", "--axes", "pause", "--groups", "1", "--num-generations", "2"),
        *("--precision", "f32", "--devices", "1", "--json", str(tmp_path / "out.json")),
    ]
    assert main(argv) == 0
    results = json.loads((tmp_path / "out.json").read_text())
    assert capsys.readouterr().out.rstrip("\n") == table(results)
    assert list(results) == ["clean", "telephone 8 bits", "telephone 6 bits"]
    values = [by["nano"]["pause/pause_handling"] for by in results.values()]
    assert all(-1 <= value <= 0 for value in values)
