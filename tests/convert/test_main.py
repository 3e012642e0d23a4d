import numpy as np
import pytest

from convert.__main__ import main
from layers_jax.command import run_command


def run(*argv):
    return run_command("moshi-jax convert", main, [str(word) for word in argv])


def test_the_round_trip_from_the_command_line(tiny_checkpoint, tmp_path, capsys):
    assert run("to-jax", tiny_checkpoint, tmp_path / "jax") == 0
    assert run("to-torch", tmp_path / "jax", tmp_path / "back", "--dtypes", "float32") == 0
    assert run("verify", tiny_checkpoint, tmp_path / "jax") == 0
    output = capsys.readouterr()
    assert "all 245 tensors are identical" in output.out
    assert "reading moshi: " in output.err and "writing model.safetensors: " in output.err
    assert run("verify", tmp_path / "jax", tmp_path / "back") == 1
    output = capsys.readouterr().out
    assert "moshi out_norm.alpha: dtype BF16 and F32, max abs difference 0\n" in output
    assert "95 of 245 tensors differ" in output


def test_bad_input_is_one_line_and_exit_code_1(tiny_weights, checkpoint_with, tmp_path, capsys):
    wrong = {**tiny_weights, "stranger": np.zeros(3, np.float32)}
    wrong["text_emb.weight"] = wrong["text_emb.weight"].T
    assert run("to-jax", checkpoint_with(wrong), tmp_path / "x") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("moshi-jax convert: ") and "stranger" in lines[-1]
    assert "text_emb.weight got [64, 256], expected [256, 64] (transposed)" in lines[-1]
    assert not (tmp_path / "x").exists()
    assert run("verify", tmp_path / "gone", tmp_path) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("argv", [[], ["to-jax"], ["to-nowhere", "a", "b"], ["to-jax", "a", "--x"]])
def test_bad_usage_is_exit_code_2(argv, capsys):
    assert run(*argv) == 2
    assert "convert" in capsys.readouterr().err


def test_help_names_every_verb(capsys):
    assert run("--help") == 0
    output = capsys.readouterr().out
    assert all(verb in output for verb in ("to-jax", "to-torch", "verify"))
