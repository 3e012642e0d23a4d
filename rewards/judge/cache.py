"""Every answer of a judge in one sqlite file: replay is free, and what was said can be read."""

import hashlib
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from rewards.judge.limits import Usage
from rewards.judge.protocol import Verdict

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, judge TEXT NOT NULL, endpoint TEXT NOT NULL,
    raw TEXT NOT NULL, value REAL, at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_key ON answers (key) WHERE value IS NOT NULL;
CREATE TABLE IF NOT EXISTS usage (
    id INTEGER PRIMARY KEY CHECK (id = 0), calls INTEGER NOT NULL, tokens INTEGER NOT NULL
);
"""


def cache_key(**parts: Any) -> str:
    """The hash of everything an answer depends on: model, prompt, parameters."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """Answers and usage in a sqlite file, or in memory.

    Used from one thread at a time. Answers that were no verdict are kept for the reader, and
    never found by `get`.

    Raises:
        ValueError: the file is not a database.
    """

    def __init__(self, path: Path | None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path or ":memory:", check_same_thread=False)
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise ValueError(
                f"cache of the judge {path}: {error}; give another file, or delete it"
            ) from error

    def get(self, key: str) -> Verdict | None:
        """The verdict that was given for a key, if one was."""
        found = self._database.execute(
            "SELECT value, raw FROM answers WHERE key = ? AND value IS NOT NULL LIMIT 1", (key,)
        ).fetchone()
        return None if found is None else Verdict(found[0], "cached", found[1])

    def add(self, key: str, *, judge: str, endpoint: str, raw: str, value: float | None) -> None:
        """Keep an answer; `value` None = it was no verdict."""
        with self._database:
            self._database.execute(
                "INSERT INTO answers (key, judge, endpoint, raw, value, at) VALUES (?,?,?,?,?,?)",
                (key, judge, endpoint, raw, value, time.time()),
            )

    def usage(self) -> Usage:
        """What all runs with this file have used."""
        found = self._database.execute("SELECT calls, tokens FROM usage").fetchone()
        return Usage(*found) if found else Usage()

    def set_usage(self, usage: Usage) -> None:
        """Keep what was used."""
        with self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO usage VALUES (0, ?, ?)", (usage.calls, usage.tokens)
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()
