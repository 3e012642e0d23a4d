"""`python -m grpo`: flags in, exit codes out."""

import pytest

from grpo.__main__ import main
from layers_jax.command import run_command

PATHS = [
    *("--checkpoint", "nowhere", "--segments", "nowhere", "--run-dir", "nowhere"),
    "--no-judge",
]


def test_help_names_the_nested_flags(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "--loss.beta" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        [*PATHS, "--no-such-flag", "1"],
        [*PATHS, "--epochs", "x"],
        [*PATHS, "--num-generations", "1"],
    ],
)
def test_bad_usage_is_two(argv, capsys):
    assert run_command("moshi-jax train", main, argv) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (PATHS, "nowhere"),
        ([*PATHS, "--devices", "99"], "99 devices wanted"),
        (PATHS[:-1], "no judge for the axes turn, interruption, expected --judge.kind remote"),
    ],
)
def test_what_cannot_work_is_one_line(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_command("moshi-jax train", main, argv) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
