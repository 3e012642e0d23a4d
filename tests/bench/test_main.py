import importlib

import pytest

from bench.__main__ import BENCHMARKS, main


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_a_function_and_is_listed(name, capsys):
    module, function = BENCHMARKS[name][1].split(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert main(["--help"]) == 0
    assert f"  {name} " in capsys.readouterr().out


def test_an_unknown_benchmark_is_bad_usage(capsys):
    assert main(["speed"]) == 2
    assert "got 'speed', expected one of" in capsys.readouterr().err


def test_the_machine_is_described(capsys):
    assert main(["machine"]) == 0
    assert "processor" in capsys.readouterr().out
