"""Recordings as token streams, and the folder they lie in: ArrayRecord shards and a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from jaxtyping import Int32

from helium_jax import MoshiConfig

__all__ = ["Entry", "TokenFolder", "TokenFormat", "pack", "read_folder", "write_folder"]

SCHEMA = 1
MANIFEST, FORMAT = "manifest.jsonl", "format.json"


@dataclass(frozen=True, kw_only=True)
class TokenFormat:
    """What the numbers of a folder mean: a model trained on others learns noise.

    Attributes:
        codec: fingerprint of everything that the codec's codes depend on.
        tokenizer: SHA-256 of the tokenizer's file.
        agent_codebooks, user_codebooks: streams after the text.
        card: entries of each codebook.
    """

    codec: int
    tokenizer: str
    agent_codebooks: int
    user_codebooks: int
    card: int
    schema: int = SCHEMA

    @property
    def num_streams(self) -> int:
        """Text and codebooks."""
        return 1 + self.agent_codebooks + self.user_codebooks

    @classmethod
    def of(cls, config: MoshiConfig, *, codec: int, tokenizer: str) -> TokenFormat:
        """Of the streams that a model takes."""
        return cls(
            codec=codec,
            tokenizer=tokenizer,
            agent_codebooks=config.num_agent_codebooks,
            user_codebooks=config.num_user_codebooks,
            card=config.card,
        )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where a recording lies.

    Attributes:
        name: of the recording.
        num_frames: its length T.
        num_words: words of the agent in it.
        shard: file name.
        row: place in the file.
    """

    name: str
    num_frames: int
    num_words: int
    shard: str
    row: int


@dataclass(frozen=True, kw_only=True)
class TokenFolder:
    """A folder of recordings.

    Attributes:
        format: what its numbers mean.
        entries: its recordings.
        read: gives the streams [K, T] of a recording: text, agent, user.
    """

    format: TokenFormat
    entries: list[Entry]
    read: Callable[[Entry], np.ndarray]


def pack(streams: Int32[np.ndarray, "K T"]) -> bytes:
    """One recording as bytes."""
    values = {"streams": len(streams), "tokens": streams.astype("<i4").tobytes()}
    packed = msgpack.packb(values)
    assert packed is not None  # only a packer that collects gives None
    return packed


def _unpack(data: bytes) -> Int32[np.ndarray, "K T"]:
    values = msgpack.unpackb(data)
    return np.frombuffer(values["tokens"], "<i4").reshape(values["streams"], -1)


def write_folder(folder: Path, entries: Iterable[Entry], format: TokenFormat) -> None:
    """Writes what stands beside the shards."""
    lines = (json.dumps(asdict(entry), ensure_ascii=False) for entry in entries)
    (folder / MANIFEST).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    text = json.dumps(asdict(format), indent=1)
    (folder / FORMAT).write_text(f"{text}\n", encoding="utf-8")


def read_folder(folder: Path) -> TokenFolder:
    """Opens a folder that `moshi-jax pretrain encode` wrote.

    Raises:
        FileNotFoundError: it is none.
        ValueError: it is of another version of this format.
    """
    from grain.sources import ArrayRecordDataSource  # 1.5 s that `--help` need not pay

    for name in (MANIFEST, FORMAT):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"cannot read tokens: got no {folder / name}, expected a folder written by"
                " `moshi-jax pretrain encode`; encode the recordings first"
            )
    values = json.loads((folder / FORMAT).read_text(encoding="utf-8"))
    if values.get("schema") != SCHEMA:
        raise ValueError(
            f"{folder}: got schema {values.get('schema')}, expected {SCHEMA}; encode again with"
            " this version"
        )
    lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    sources: dict[str, Any] = {}  # by shard, opened when first read

    def read(entry: Entry) -> Int32[np.ndarray, "K T"]:
        if entry.shard not in sources:
            sources[entry.shard] = ArrayRecordDataSource(str(folder / entry.shard))
        return _unpack(sources[entry.shard][entry.row])

    entries = [Entry(**json.loads(line)) for line in lines]
    return TokenFolder(format=TokenFormat(**values), entries=entries, read=read)
