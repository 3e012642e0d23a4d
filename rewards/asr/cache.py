"""Transcripts by the hash of what was heard: a corpus is transcribed once."""

import hashlib
import json
import sqlite3
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from rewards.asr.protocol import Recognizer, Transcript, Word


def clip_key(recognizer: Recognizer, clip: Float32[np.ndarray, " S"]) -> str:
    """The hash of the audio and of who hears it."""
    who = f"{recognizer.name}\n{recognizer.version}\n{len(clip)}\n".encode()
    return hashlib.sha256(who + np.ascontiguousarray(clip, "<f4").tobytes()).hexdigest()


class TranscriptCache:
    """Transcripts in a sqlite file, or in memory.

    Raises:
        ValueError: the file is not a database.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path or ":memory:", check_same_thread=False)
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS transcripts (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
            )
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise ValueError(
                f"cache of transcripts {path}: {error}; give another file, or delete it"
            ) from error

    def get(self, key: str) -> Transcript | None:
        """The transcript of a clip, if it was heard before."""
        found = self._database.execute(
            "SELECT value FROM transcripts WHERE key = ?", (key,)
        ).fetchone()
        if found is None:
            return None
        value = json.loads(found[0])
        words = value["words"]
        return Transcript(
            value["text"],
            None if words is None else tuple(Word(**word) for word in words),
            value["logprob"],
        )

    def add(self, key: str, transcript: Transcript) -> None:
        """Keep a transcript."""
        with self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO transcripts VALUES (?, ?)",
                (key, json.dumps(asdict(transcript))),
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()
