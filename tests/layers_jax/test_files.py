"""atomic_path: all or nothing, for files and folders, and the old content survives a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layers_jax.files import atomic_path


class Interrupted(BaseException):
    """Stands for Ctrl-C: not an Exception, and must still clean up."""


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def write_folder(folder: Path, content: str) -> None:
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file.txt").write_text(content)


def test_new_file_appears_only_after_the_block(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(tmp_path) == ["result.json"]


def test_temporary_is_a_sibling_with_the_same_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "result.npz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".npz"
        assert not temporary.exists()
        temporary.touch()


def test_accepts_a_string(tmp_path: Path) -> None:
    with atomic_path(str(tmp_path / "a.txt")) as temporary:
        temporary.write_text("x")
    assert names(tmp_path) == ["a.txt"]


def test_existing_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, Interrupted])
def test_failed_file_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_failed_new_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert names(tmp_path) == []


def test_new_folder(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "run") as temporary:
        write_folder(temporary, "new")
    assert (tmp_path / "run" / "inner" / "file.txt").read_text() == "new"
    assert names(tmp_path) == ["run"]


def test_existing_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "run"
    write_folder(target, "old")
    (target / "only_in_old.txt").touch()
    with atomic_path(target) as temporary:
        write_folder(temporary, "new")
    assert names(target) == ["inner"]
    assert (target / "inner" / "file.txt").read_text() == "new"
    assert names(tmp_path) == ["run"]


def test_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "run"
    write_folder(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        write_folder(temporary, "half")
        raise RuntimeError
    assert (target / "inner" / "file.txt").read_text() == "old"
    assert names(tmp_path) == ["run"]


def test_failed_rename_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "run"
    write_folder(target, "old")
    replace = os.replace
    calls = []

    def second_call_fails(source: Path, destination: Path) -> None:
        calls.append((source, destination))
        if len(calls) == 2:
            raise OSError("disk says no")
        replace(source, destination)

    with pytest.raises(OSError, match="disk says no"), atomic_path(target) as temporary:
        write_folder(temporary, "new")
        monkeypatch.setattr(os, "replace", second_call_fails)
    assert len(calls) == 3  # aside, in (fails), back
    assert (target / "inner" / "file.txt").read_text() == "old"
    assert names(tmp_path) == ["run"]


def test_folder_may_replace_a_file(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.write_text("old")
    with atomic_path(target) as temporary:
        write_folder(temporary, "new")
    assert (target / "inner" / "file.txt").read_text() == "new"
    assert names(tmp_path) == ["run"]


def test_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "run"
    write_folder(target, "old")
    with (
        pytest.raises(IsADirectoryError, match="expected a file or nothing"),
        atomic_path(target) as temporary,
    ):
        temporary.write_text("new")
    assert (target / "inner" / "file.txt").read_text() == "old"
    assert names(tmp_path) == ["run"]


def test_symbolic_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    write_folder(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_path(tmp_path / "link") as temporary:
        write_folder(temporary, "new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link" / "inner" / "file.txt").read_text() == "new"
    assert (tmp_path / "real" / "inner" / "file.txt").read_text() == "old"
    assert names(tmp_path) == ["link", "real"]


def test_missing_parent_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match=r"got no folder .*nowhere.*create it first"),
        atomic_path(tmp_path / "nowhere" / "a.txt"),
    ):
        pytest.fail("the block must not run")


def test_writing_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with (
        pytest.raises(FileNotFoundError, match="got nothing at the temporary path"),
        atomic_path(tmp_path / "a.txt"),
    ):
        pass
    assert (tmp_path / "a.txt").read_text() == "old"
