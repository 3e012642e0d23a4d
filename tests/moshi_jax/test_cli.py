import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import moshi_jax
from moshi_jax import cli

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=ROOT,
    )


def test_help_lists_every_verb(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for verb, (about, _) in cli.VERBS.items():
        assert f"  {verb} " in out
        assert about in out
    assert all(len(line) <= 100 for line in out.splitlines())


def test_without_a_verb_the_help_goes_to_stderr_with_exit_2(capsys):
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert "usage: moshi-jax VERB" in captured.err
    assert captured.out == ""


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"moshi-jax {moshi_jax.__version__}\n"


def test_an_unknown_verb_is_bad_usage_and_names_the_known_ones(capsys):
    assert cli.main(["steam", "x.wav"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("moshi-jax: unknown verb 'steam', expected one of demo, ")
    assert error.endswith("did you mean 'stream'?\n")


def test_a_verb_runs_under_the_error_policy(capsys, monkeypatch):
    def refuse(argv):
        raise ValueError(f"got {argv[0]}, expected a folder")

    monkeypatch.setattr(cli, "verb_function", lambda verb: refuse)
    assert cli.main(["verify", "x.wav"]) == 1
    assert capsys.readouterr().err == "moshi-jax verify: got x.wav, expected a folder\n"
    assert cli.main(["verify", "x.wav", "--debug"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_a_main_that_takes_arguments(verb):
    function = cli.verb_function(verb)
    assert list(inspect.signature(function).parameters) == ["argv"]


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_answers_help_under_its_own_name(capsys, verb):
    assert cli.main([verb, "--help"]) == 0
    assert f"usage: moshi-jax {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("package", ["convert", "grpo", "moshi_jax", "rewards"])
def test_every_package_with_commands_answers_help(package):
    done = python("-m", package, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_commands_share_compiled_programs_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    cli.keep_compiled_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == ""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cli.keep_compiled_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "moshi-jax" / "compiled")


def test_help_and_version_do_not_wait_for_jax():
    code = (
        "import sys; from moshi_jax.cli import main; main(['--help']);"
        "sys.exit(any(m in sys.modules for m in ('jax', 'flax', 'numpy')))"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stdout + done.stderr
