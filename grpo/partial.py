"""The folder an extraction works in: it survives a kill, and becomes the result in the end."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LOCK, _KEY = ".lock", ".key.json"


def digest(values: Any) -> str:
    """SHA-256 of plain values, in hex."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@contextmanager
def partial_folder(destination: Path, key: Any) -> Iterator[Path]:
    """A folder `.<name>.partial` beside `destination`, alone used by this process.

    It is kept when the block fails or the process is killed, and found again by the next run.

    Args:
        destination: where the result will lie; see `finish`.
        key: plain values that say what the work depends on. A folder begun under another key is
            not continued.

    Raises:
        ValueError: another process works there, the folder was begun under another key, or
            something lies at `destination` already.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ValueError(
            f"{destination}: got something there already, expected a new or empty folder;"
            " remove it or choose another"
        )
    folder = destination.with_name(f".{destination.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"{folder}: got another process at work there, expected none; wait for it"
            ) from error
        stored = folder / _KEY
        text = json.dumps(key, sort_keys=True, indent=1)
        if not stored.is_file():
            stored.write_text(text, encoding="utf-8")
        elif stored.read_text(encoding="utf-8") != text:
            raise ValueError(
                f"{folder}: got a run begun with other settings (in {_KEY}), expected those of"
                " this one; finish it with its settings, or remove the folder"
            )
        yield folder


def finish(folder: Path, destination: Path) -> None:
    """Makes the partial folder the result: working files go, and it takes its name.

    Files that start with a dot are working files.
    """
    for path in folder.iterdir():
        if path.name.startswith("."):
            path.unlink()
    os.replace(folder, destination)  # an empty folder there is replaced
