"""The chain: stages in order, each once, and a failure that is named."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from recipes.nano import __main__ as chain

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def commands(monkeypatch):
    """What would run; a stage named in `fails` ends badly."""
    seen, fails = [], set()

    def run(command, check):
        seen.append(command[2].removeprefix("recipes.nano."))
        return SimpleNamespace(returncode=int(seen[-1] in fails))

    monkeypatch.setattr(subprocess, "run", run)
    return SimpleNamespace(seen=seen, fails=fails)


def test_every_stage_runs_once_in_order_and_goes_on_after_a_failure(tmp_path, commands):
    wanted = chain.Chain(folder=tmp_path / "runs", seed=3)
    modules = [stage.module for stage in chain.stages(wanted)]
    commands.fails.add("language_model")
    with pytest.raises(ValueError, match="stage lm ended with exit code 1, expected 0"):
        chain.run(wanted)
    assert commands.seen == modules[: modules.index("language_model") + 1]
    commands.fails.clear()
    commands.seen.clear()
    seconds = chain.run(wanted)
    assert commands.seen == modules[modules.index("language_model") :]
    assert json.loads((tmp_path / "runs" / "times.json").read_text()) == seconds
    assert list(seconds) == [stage.name for stage in chain.stages(wanted)]


def test_it_ends_with_the_stage_that_is_asked_for(tmp_path, commands):
    assert list(chain.run(chain.Chain(folder=tmp_path, until="decoder"))) == ["codec", "decoder"]
    with pytest.raises(ValueError, match="until: got 'codek', expected one of codec, decoder"):
        chain.run(chain.Chain(folder=tmp_path, until="codek"))


def test_every_stage_is_a_module_that_gets_the_seed_or_makes_nothing():
    for stage in chain.stages(chain.Chain(folder=Path("runs"), seed=3)):
        assert (ROOT / "recipes" / "nano" / f"{stage.module}.py").is_file(), stage.module
        assert "3" in stage.arguments or stage.name == "answers"
