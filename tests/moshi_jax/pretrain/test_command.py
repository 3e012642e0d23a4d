"""The command: recordings in, a checkpoint out, one line for what is wrong."""

import logging

import pytest

from layers_jax.command import run_command
from moshi_jax.cli import main
from moshi_jax.pretrain.train import LOGGER


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Neither the user's cache of programs nor handlers that write to this test's stderr."""
    monkeypatch.setattr("moshi_jax.cli.keep_compiled_programs", lambda: None)
    yield
    for name in ("grpo", LOGGER):
        logging.getLogger(name).handlers, logging.getLogger(name).propagate = [], True


def test_recordings_in_and_a_checkpoint_out(corpus, checkpoint, tmp_path, capsys):
    folder, run = str(tmp_path / "tokens"), tmp_path / "run"
    assert main(["pretrain", "encode", str(corpus), folder, "--checkpoint", str(checkpoint)]) == 0
    said = capsys.readouterr()
    assert "3 recordings, 0.000 h, 3 words of the agent" in said.out
    assert "skipped mute.wav: got no .json" in said.err
    options = (
        f"--checkpoint {checkpoint} --data {folder} --run-dir {run} --steps 2 --batch 2 "
        "--cut-frames 10 --log-every 1 --checkpoint-every 2 --devices 1 --precision f32 "
        "--optimizer.warmup-updates 0"
    )
    assert main(["pretrain", "train", *options.split()]) == 0
    assert f"exported {run / 'export'}" in capsys.readouterr().out
    assert (run / "export" / "model.safetensors").is_file()


def test_what_is_wrong_is_one_line(tmp_path, checkpoint, capsys):
    options = ["--checkpoint", str(checkpoint), "--data", str(tmp_path), "--run-dir", "none"]
    assert main(["pretrain", "train", *options]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "expected a folder written by" in lines[0]
    assert run_command("moshi-jax pretrain", lambda argv: main(["pretrain"]), []) == 2
