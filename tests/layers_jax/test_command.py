import subprocess
import sys
from pathlib import Path

import pytest

from layers_jax.command import one_line, run_command


def run(error, argv=()):
    def main(arguments):
        raise error

    return run_command("tool verb", main, argv)


def test_the_code_of_main_is_the_exit_code_and_it_gets_the_arguments():
    seen = []

    def main(arguments):
        seen.append(arguments)
        return 7

    assert run_command("tool", main, ["a", "--debug", "--b", "c"]) == 7
    assert seen == [["a", "--b", "c"]]


def test_without_argv_the_arguments_of_the_process_are_used(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/__main__.py", "x"])
    assert run_command("tool", lambda arguments: len(arguments), None) == 1


def test_the_usage_line_names_the_command_and_argv_is_restored():
    before = list(sys.argv)
    seen = []
    assert run_command("tool verb", lambda arguments: seen.append(list(sys.argv)) or 0, ["x"]) == 0
    assert seen == [["tool verb", "x"]]
    assert sys.argv == before


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("got 3, expected 4"), "tool verb: got 3, expected 4\n"),
        (ValueError("two problems:\n  a is missing\n\n  b is extra\n"), None),
        (FileNotFoundError("no file x; name one that exists"), None),
        (FileNotFoundError(2, "No such file or directory", "x.wav"), None),
        (ImportError("soxr is missing; run pip install 'moshi-jax[audio]'"), None),
        (ValueError(), "tool verb: ValueError\n"),
    ],
)
def test_wrong_input_is_one_line_and_exit_1(capsys, error, line):
    assert run(error) == 1
    captured = capsys.readouterr()
    assert captured.err == (line or f"tool verb: {one_line(error)}\n")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_one_line_keeps_every_part_of_a_message():
    assert one_line(ValueError("two:\n  a is missing\n\n b is extra\n")) == (
        "two:; a is missing; b is extra"
    )
    assert one_line(FileNotFoundError(2, "No such file", "x.wav")) == "x.wav: No such file"


@pytest.mark.parametrize("how", ["option", "variable"])
def test_debug_adds_the_traceback(capsys, monkeypatch, how):
    argv = ["--debug"] if how == "option" else []
    monkeypatch.setenv("MOSHI_JAX_DEBUG", "1" if how == "variable" else "0")
    assert run(ValueError("got 3"), argv) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last)")
    assert error.endswith("tool verb: got 3\n")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="broken"):
        run(RuntimeError("broken"))
    with pytest.raises(TypeError):
        run(TypeError("broken"))
    with pytest.raises(ImportError):
        run(ImportError("No module named 'x'", name="x"))


@pytest.mark.parametrize(
    ("stop", "code"),
    [(SystemExit(), 0), (SystemExit(0), 0), (SystemExit(2), 2), (SystemExit("why"), 1)],
)
def test_exits_of_the_argument_parser_become_codes(capsys, stop, code):
    assert run(stop) == code
    assert capsys.readouterr().err == ("why\n" if code == 1 else "")


def test_an_interrupt_is_130(capsys):
    assert run(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "tool verb: interrupted\n"


def test_a_reader_that_leaves_is_not_an_error_message():
    code = (
        "import sys; from layers_jax.command import run_command\n"
        "def main(argv):\n"
        "    for i in range(10**6): print(i)\n"
        "sys.exit(run_command('tool', main, []))"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
