"""Files that are either complete or not there: write aside, then rename."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = ["atomic_path"]


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it to `path` when the block succeeds.

    The block creates a file or a folder at the yielded path (same folder, same suffix, so writers
    that look at the suffix behave). A reader sees the old content or the new content, never a half.
    Replacing a folder takes two renames: the old folder moves aside, the new one moves in, the old
    one is deleted last; if the second rename fails the old folder moves back. A process killed
    between the two leaves the old folder whole as `.<8 hex digits>.old.<name>`.
    A symbolic link at `path` is itself replaced, what it points to stays.

    Args:
        path: where the finished file or folder goes; its parent must exist.

    Yields:
        The path to write to; nothing is there yet.

    Raises:
        FileNotFoundError: the parent folder does not exist, or the block wrote nothing.
        IsADirectoryError: the block wrote a file, but `path` is a folder.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {target}: got no folder {target.parent}, expected an existing folder;"
            " create it first"
        )
    token = uuid.uuid4().hex[:8]
    temporary = target.with_name(f".{token}.{target.name}")
    try:
        yield temporary
        if not temporary.exists():
            raise FileNotFoundError(
                f"cannot write {target}: got nothing at the temporary path, expected a file or a"
                " folder; write to the path that atomic_path yields"
            )
        if temporary.is_dir():
            _move_folder_in(temporary, target, target.with_name(f".{token}.old.{target.name}"))
        elif target.is_dir() and not target.is_symlink():
            raise IsADirectoryError(
                f"cannot write {target}: got a folder there, expected a file or nothing; remove the"
                " folder or choose another name"
            )
        else:
            os.replace(temporary, target)
    finally:
        _remove(temporary)  # after a success there is nothing left to remove


def _move_folder_in(new: Path, target: Path, aside: Path) -> None:
    # A rename replaces at most an *empty* folder, so a full one has to step aside first.
    if not os.path.lexists(target):
        os.replace(new, target)
        return
    os.replace(target, aside)
    try:
        os.replace(new, target)
    except BaseException:
        os.replace(aside, target)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
