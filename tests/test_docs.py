"""What the documents tell a reader to type works."""

import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest

from moshi_jax.cli import VERBS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
CI = (ROOT / ".ci" / "run").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

shell_commands = runpy.run_path(str(ROOT / ".ci" / "readme_commands.py"))["shell_commands"]


def python_blocks(markdown):
    return re.findall(r"^```python\n(.*?)^```", markdown, flags=re.DOTALL | re.MULTILINE)


def test_shell_blocks_are_split_into_commands():
    markdown = "```sh\n# why\na b \\\n  --c\n\nd\n```\n```python\nx\n```\n```sh\ne\n```\n"
    assert shell_commands(markdown) == ["a b --c", "d", "e"]


def test_ci_runs_every_command_of_the_readme():
    """`make` commands are stages of .ci/run; it runs all others out of the README itself."""
    commands = shell_commands(README)
    assert {"make demo", "make test"} <= set(commands)
    for command in commands:
        if command.startswith("make "):
            assert re.search(rf"^stage .* {command}$", CI, flags=re.MULTILINE), command
    assert ".ci/readme_commands.py" in CI
    assert re.search(r"^stage .* readme_commands$", CI, flags=re.MULTILINE)


def test_commands_of_the_readme_use_known_verbs_and_files_that_exist():
    for command in shell_commands(README):
        program, verb, *rest = shlex.split(command)
        assert program == "make" or (program == "moshi-jax" and verb in VERBS), command
        for argument in rest:
            if "/" in argument and not argument.startswith("runs/"):
                assert (ROOT / argument).exists(), command


def test_python_blocks_of_the_readme_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = python_blocks(README)
    assert len(blocks) == 1
    scope = {}
    exec(compile(blocks[0], "README.md", "exec"), scope)
    out = scope["out"]
    assert out.pcm.shape == (1, 1920)
    assert bool(out.valid[0])
    assert np.isfinite(np.asarray(out.pcm)).all()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_verbs_and_links_in_documents_exist(document):
    text = document.read_text()
    verbs = re.findall(r"`moshi-jax ([a-z]+)", text)
    assert set(verbs) <= set(VERBS)
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (document.parent / link).exists(), link


def test_documents_name_every_verb():
    for document in (ROOT / "README.md", ROOT / "docs" / "architecture.md"):
        named = set(re.findall(r"`moshi-jax ([a-z]+)`", document.read_text()))
        assert named >= set(VERBS), document.name
