import json
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

import convert.folders
from convert import (
    ConversionError,
    ReleaseOptions,
    load_mimi,
    load_moshi,
    read_configs,
    to_jax,
    to_torch,
)
from convert.folders import new_folder


@pytest.fixture(scope="module")
def converted(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "new" / "jax"
    to_jax(tiny_checkpoint, folder)
    return folder


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def release_files(folder):
    return {name: data for name, data in files(folder).items() if not name.endswith(".md")}


def test_there_and_back_gives_the_same_files(converted, tiny_checkpoint, tmp_path):
    to_torch(converted, tmp_path / "back")
    assert release_files(tmp_path / "back") == release_files(tiny_checkpoint)


def test_a_converted_folder_loads_as_the_release_does(converted, tiny_checkpoint):
    for load in (load_moshi, load_mimi):
        module, params = load(converted)
        expected_module, expected = load(tiny_checkpoint)
        assert module.config == expected_module.config
        jax.tree.map(np.testing.assert_array_equal, params, expected)
        formats = [jax.tree.map(lambda leaf: leaf.dtype, tree) for tree in (params, expected)]
        assert formats[0] == formats[1]


def test_json_files_and_tokenizer_travel_along(converted, tiny_checkpoint):
    for name in ("config.json", "mimi_config.json", "tokenizer_spm_tiny.model"):
        assert (converted / name).read_bytes() == (tiny_checkpoint / name).read_bytes()
    found = read_configs(converted)
    assert found.is_jax and found.weights("moshi") == converted / "moshi"


@pytest.mark.parametrize("dtypes", ["float32", "bfloat16"])
def test_the_language_model_can_change_its_format(dtypes, converted, tmp_path):
    to_torch(converted, tmp_path / "back", ReleaseOptions(dtypes=dtypes))
    _, params = load_moshi(tmp_path / "back")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {dtypes}
    jax.tree.map(np.testing.assert_array_equal, params, load_moshi(converted)[1])


def test_wrong_direction_is_refused(converted, tiny_checkpoint, tmp_path):
    with pytest.raises(ConversionError, match="got a converted folder, expected a release"):
        to_jax(converted, tmp_path / "x")


def test_what_is_there_is_never_overwritten(tiny_checkpoint, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="expected a new or an empty folder"):
        to_jax(tiny_checkpoint, tmp_path)
    assert files(tmp_path) == {"mine.txt": b"mine"}


def test_an_interrupted_conversion_leaves_nothing(tiny_checkpoint, tmp_path, monkeypatch):
    def stop(path, leaves):
        next(iter(leaves))
        path.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(convert.folders, "save_leaves", stop)
    with pytest.raises(KeyboardInterrupt):
        to_jax(tiny_checkpoint, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    to_jax(tiny_checkpoint, tmp_path / "x")
    assert read_configs(tmp_path / "x").is_jax


def test_a_missing_tokenizer_leaves_nothing(tiny_weights, checkpoint_with, tmp_path):
    folder = checkpoint_with(tiny_weights)
    (folder / "tokenizer_spm_tiny.model").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer_spm_tiny\.model: got no file"):
        to_jax(folder, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_damaged_conversion_is_refused(converted, tmp_path):
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(converted, folder)
    shutil.rmtree(folder / "moshi")
    with pytest.raises(ConversionError, match="expected an orbax checkpoint"):
        load_moshi(folder)
    (folder / "conversion.json").write_text(json.dumps({"moshi": {}}))
    for load in (load_moshi, load_mimi):
        with pytest.raises(ConversionError, match=r"conversion\.json does not describe"):
            load(folder)


def test_progress_counts_every_tensor(tiny_checkpoint, converted, tmp_path):
    seen = {}

    def progress(what, count):
        seen[what] = [count, 0]

        def tick():
            seen[what][1] += 1

        return tick

    to_jax(tiny_checkpoint, tmp_path / "a", progress=progress)
    to_torch(converted, tmp_path / "b", progress=progress)
    assert len(seen) == 4
    assert all(count == ticks > 0 for count, ticks in seen.values()), seen


def test_an_empty_folder_may_be_filled(tmp_path):
    target = tmp_path / "empty"
    target.mkdir()
    with new_folder(target) as folder:
        (folder / "x").touch()
    assert [path.name for path in target.iterdir()] == ["x"]


KILLED = """
import os, signal, sys
import convert.folders
from convert import orbax_io, to_jax
orbax_io.GROUP_BYTES = 1 << 18
count = 0
def progress(what, total):
    def tick():
        global count
        count += 1
        if count == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
    return tick
to_jax(sys.argv[1], sys.argv[2], progress=progress)
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 60, 180])
def test_a_killed_conversion_leaves_nothing_complete_and_the_next_one_finishes(
    after, tiny_checkpoint, tmp_path
):
    target = tmp_path / "jax"
    arguments = [sys.executable, "-c", KILLED, str(tiny_checkpoint), str(target), str(after)]
    done = subprocess.run(arguments, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not target.exists()
    left = {path.name for path in tmp_path.iterdir()}
    assert any(re.fullmatch(r"\.[0-9a-f]{8}\.jax", name) for name in left), left
    for name in left:
        if (tmp_path / name).is_dir():
            with pytest.raises(ConversionError):
                load_moshi(tmp_path / name)
    to_jax(tiny_checkpoint, target)
    assert [path.name for path in tmp_path.iterdir()] == ["jax"]
    assert load_moshi(target)[0].config == load_moshi(tiny_checkpoint)[0].config


def test_two_writers_of_a_folder_do_not_meet(tmp_path):
    with new_folder(tmp_path / "x") as folder:
        (folder / "a").touch()
        with (
            pytest.raises(FileExistsError, match="another process is writing it"),
            new_folder(tmp_path / "x"),
        ):
            pytest.fail("the second writer came in")
        assert folder.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_leftovers_of_the_same_folder_only_are_removed(tmp_path):
    for name in (".0123abcd.x", ".0123abcd.y", ".0123abcd.old.x", ".notahash.x"):
        (tmp_path / name).mkdir()
    with new_folder(tmp_path / "x"):
        pass
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"x", ".0123abcd.y", ".0123abcd.old.x", ".notahash.x"}


def test_values_that_are_no_numbers_are_named_and_leave_nothing(
    tiny_weights, checkpoint_with, tmp_path
):
    tensors = {key: value.copy() for key, value in tiny_weights.items()}
    for key in ("emb.3.weight", "transformer.layers.1.norm1.alpha"):
        tensors[key].reshape(-1)[2] = np.nan
    tensors["text_emb.weight"][1, 1] = -np.inf
    folder = checkpoint_with(tensors)
    for work in (lambda: to_jax(folder, tmp_path / "x"), lambda: load_moshi(folder)):
        with pytest.raises(ConversionError, match="not finite: ") as caught:
            work()
        message = str(caught.value)
        assert "text_emb.weight" in message and "layers.1.norm1.alpha" in message
    assert not (tmp_path / "x").exists()
