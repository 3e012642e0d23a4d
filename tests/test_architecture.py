"""The walls of the house: who may import whom, sizes, public names, and what no file may say."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax.numpy as jnp
import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTALLED = PROJECT["tool"]["setuptools"]["packages"]
PACKAGES = [name for name in INSTALLED if "." not in name]

# room: the rooms it may import.
MAY_IMPORT = {
    "layers_jax": set(),
    "mimi_jax": {"layers_jax"},
    "helium_jax": {"layers_jax", "mimi_jax"},
    "convert": {"layers_jax", "mimi_jax", "helium_jax"},
    "rewards": set(),
    "grpo": {"layers_jax", "mimi_jax", "helium_jax", "convert", "rewards"},
    "bench": {"layers_jax", "mimi_jax", "helium_jax", "convert", "rewards", "grpo"},
    "moshi_jax": {"layers_jax", "mimi_jax", "helium_jax", "convert", "rewards", "grpo", "bench"},
}
MAX_LINES = 400
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".json", ".jsonl", ".sh", ".cfg", ".ini", ""}
SKIPPED_FOLDERS = {"__pycache__", "runs", "build", "dist"}


def project_files():
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = [  # pruned before os.walk enters them: .venv alone is 30 000 files
            name
            for name in sorted(subfolders)
            if name == ".ci" or not (name.startswith(".") or name in SKIPPED_FOLDERS)
            if not name.endswith(".egg-info")
        ]
        # In a worktree `.git` is a file, which says where the repository is.
        yield from (Path(folder, name) for name in sorted(names) if name != ".git")


def python_files(*folders):
    return [
        p for p in project_files() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in folders
    ]


def relative(path):
    return path.relative_to(ROOT).as_posix()


SOURCES = python_files(*PACKAGES)
TESTS = [path for path in python_files("tests") if path.name.startswith("test_")]


def imported_modules(tree):
    """Every absolute module name imported anywhere in a file, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and node.level == 0, f"line {node.lineno}: relative import"
            yield node.module


def test_the_rooms_are_the_installed_packages():
    folders = [relative(path.parent) for path in project_files() if path.name == "__init__.py"]
    assert sorted(folder.replace("/", ".") for folder in folders) == sorted(INSTALLED)
    assert sorted(MAY_IMPORT) == sorted(PACKAGES)


def rooms_imported(path):
    return {name.split(".")[0] for name in imported_modules(ast.parse(path.read_text()))}


def test_imports_follow_the_room_direction():
    against = {
        relative(path): wrong
        for path in SOURCES
        for room in [path.relative_to(ROOT).parts[0]]
        if (wrong := rooms_imported(path) & {*PACKAGES, "tests"} - MAY_IMPORT[room] - {room})
    }
    assert against == {}
    assert len(SOURCES) > len(PACKAGES)


def test_the_torch_reference_is_never_needed_at_run_time():
    oracle = {"torch", "moshi", "silero_vad", "onnxruntime", "einops"}
    needing = {relative(path) for path in SOURCES if rooms_imported(path) & oracle}
    needing -= {relative(path) for path in PEERS}
    # The first runs its sentence encoder in onnxruntime; the others are what is compared with.
    assert needing == {"rewards/judge/embedded.py", "bench/vad.py"}


PEERS = [path for path in SOURCES if relative(path).startswith("bench/peers/")]


def test_what_a_benchmark_is_held_against_is_imported_when_it_is_asked_for():
    runtimes = {"torch", "moshi", "rustymimi", "transformers"}
    assert len(PEERS) > len(runtimes)
    for path in PEERS:
        top = ast.parse(path.read_text()).body
        early = [node for node in top if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not set(imported_modules(ast.Module(early, []))) & runtimes, relative(path)


def test_files_stay_small():
    sizes = {relative(path): len(path.read_text().splitlines()) for path in [*SOURCES, *TESTS]}
    assert {path: lines for path, lines in sizes.items() if lines > MAX_LINES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_resolve_into_this_checkout(package):
    module = importlib.import_module(package)
    assert Path(str(module.__file__)) == ROOT / package / "__init__.py"
    assert module.__doc__
    assert len(set(module.__all__)) == len(module.__all__) > 0
    for name in module.__all__:
        assert getattr(module, name) is not None, f"{package}.{name}"


def test_the_installed_names_are_this_checkout():
    """Outside the checkout too: `grpo`, `rewards` and `convert` are also other people's names."""
    code = f"import importlib\nfor n in {PACKAGES}: print(importlib.import_module(n).__file__)"
    installed = subprocess.run(
        [sys.executable, "-c", "import importlib.metadata as m; print(m.version('moshi-jax'))"],
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    if installed.returncode != 0:
        pytest.skip("moshi-jax is not installed in this environment (make test installs it)")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(ROOT / name / "__init__.py") for name in PACKAGES]


def joined(text):
    """Lets this file speak of what it forbids: `joined("a+b")` is `"ab"`."""
    return text.replace("+", "")


FORBIDDEN = re.compile(
    joined(r"(?<!\w)/(?:wo+rk|tm+p|ro+ot)/")
    + joined(r"|py+pi\.org|python+hosted|download\.py+torch|npm+js\.org")
    + joined(r"|(?<![\w/])sp+ec/[a-z]|shared/+golden|shared/+design")
)


def test_the_forbidden_pattern_sees_what_it_should():
    for bad in ("see /wo+rk/x", "open('/tm+p/a')", "sp+ec/models.md", "https://py+pi.org/"):
        assert FORBIDDEN.search(joined(bad)), bad
    for good in ("https://x.y/network/z", "special/x", "x.org/spec/v2", "a/tmp_file"):
        assert not FORBIDDEN.search(good), good


def test_no_file_names_a_machine_a_registry_or_private_notes():
    found = []
    for path in project_files():
        if path.suffix in TEXT_SUFFIXES and path.name != "LICENSE":
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if match := FORBIDDEN.search(line):
                    found.append(f"{relative(path)}:{number}: {match.group()}")
    assert found == []


def says_something(call):
    """A call that fails the test by itself: pytest.raises, warns, fail, np.testing.assert_*."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in {"raises", "warns", "fail"} or name.startswith("assert_")


def asserting_functions(tree):
    """Names of the functions in a file that assert, directly or through another one of the file."""
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    asserting = set()
    while True:
        found = {
            function.name
            for function in functions
            if any(
                isinstance(node, ast.Assert)
                or (
                    isinstance(node, ast.Call)
                    and (says_something(node) or getattr(node.func, "id", None) in asserting)
                )
                for node in ast.walk(function)
            )
        }
        if found == asserting:
            return asserting, functions
        asserting = found


def test_no_test_asserts_nothing():
    silent, count = [], 0
    for path in TESTS:
        asserting, functions = asserting_functions(ast.parse(path.read_text()))
        tests = [function.name for function in functions if function.name.startswith("test_")]
        count += len(tests)
        silent += [f"{relative(path)}: {name}" for name in tests if name not in asserting]
    assert silent == []
    assert count > 0


def test_test_folders_are_the_rooms():
    """`tests/<package>/test_<file>.py`; files directly in `tests/` are about the project."""
    folders = {path.relative_to(ROOT / "tests").parts[:-1] for path in TESTS}
    recipes = {("recipes", path.name) for path in (ROOT / "recipes").iterdir()}  # not installed
    assert folders <= {(), *recipes, *(tuple(package.split(".")) for package in INSTALLED)}


def test_shapes_in_signatures_are_checked_while_testing():
    from layers_jax import masked_update

    with pytest.raises(Exception, match="Type-check error"):
        masked_update(jnp.zeros((2, 2), bool), jnp.zeros(2), jnp.zeros(2))
