"""From recordings with transcripts to token streams, once, before any training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro
from jaxtyping import Int32

from convert import load_mimi, read_configs
from grpo.checkpoint import fingerprint
from grpo.corpora import BadFile, Recording
from grpo.corpora.moshi_finetune import list_moshi_finetune
from grpo.partial import finish, partial_folder
from grpo.records import open_shard
from helium_jax import MoshiConfig, TextTokenizer
from layers_jax.functional import Params
from mimi_jax import BlockCodec
from moshi_jax.codec.audio import read_pieces
from moshi_jax.pretrain.interleaver import text_stream
from moshi_jax.pretrain.tokens import Entry, TokenFormat, pack, write_folder

__all__ = ["EncodeConfig", "Encoded", "codec_fingerprint", "encode_corpus", "format_of"]

_LOG = ".shards.jsonl"
_DECODING = ("upsample", "decoder_transformer", "decoder")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Recordings in the layout of moshi-finetune to token streams.

    A run that was stopped goes on when it is started again.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """A .jsonl of stereo files (left the agent, right the user), each with its words beside it."""
    destination: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """New folder: ArrayRecord shards, manifest.jsonl, format.json, summary.json."""
    checkpoint: Path
    """Checkpoint folder: its codec and tokenizer are used, its streams are made."""
    batch: int = 4
    """Recordings that are encoded side by side."""
    shard_recordings: int = 64
    """Recordings in a shard: what a kill costs at most."""

    def __post_init__(self) -> None:
        for name in ("batch", "shard_recordings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")


class Encoded(NamedTuple):
    """What an encoding made."""

    recordings: int
    hours: float
    words: int
    bad_files: list[BadFile]


class _Shard(NamedTuple):
    entries: list[Entry]
    bad: list[BadFile]


def encode_corpus(config: EncodeConfig, *, progress: Progress | None = None) -> Encoded:
    """Encode every recording of a corpus; `destination` is complete or not there.

    Args:
        config: what, where to and with what.
        progress: told how many of how many shards are written.

    Raises:
        FileNotFoundError: no corpus, or no checkpoint.
        ValueError: `destination` is in use, the work was begun with other settings, or nothing can
            be used.
        ConversionError: the checkpoint cannot be used.
    """
    listing = list_moshi_finetune(config.source)
    checkpoint = read_configs(config.checkpoint)
    mimi, params = load_mimi(config.checkpoint)
    tokenizer = TextTokenizer(checkpoint.tokenizer)
    wanted = format_of(checkpoint.lm, params, checkpoint.tokenizer)
    encoder = _Encoder(
        codec=BlockCodec(mimi, params, batch=2 * config.batch),
        lm=checkpoint.lm,
        encode=tokenizer.encode_strictly,
    )
    recordings = sorted(listing.recordings, key=lambda recording: recording.name)
    parts = list(_parts(recordings, config.shard_recordings))
    key = {
        "format": dataclasses.asdict(wanted),
        "shard_recordings": config.shard_recordings,
        "recordings": [recording.name for recording in recordings],
    }
    with partial_folder(config.destination, key) as folder:
        done = _read_log(folder)
        with open(folder / _LOG, "w", encoding="utf-8") as log:
            for number, part in enumerate(parts):
                name = f"tokens-{number:05d}.array_record"
                shard = done.get(name) or _write(folder, name, part, encoder, config.batch)
                done[name] = shard
                log.write(_to_line(name, shard))
                log.flush()
                if progress is not None:
                    progress(number + 1, len(parts))
        shards = [done[name] for name in sorted(done)]
        entries = [entry for shard in shards for entry in shard.entries]
        bad = [*listing.bad, *(file for shard in shards for file in shard.bad)]
        if not entries:
            first = f" (first {bad[0].name}: {bad[0].reason})" if bad else ""
            raise ValueError(
                f"{config.source}: got no recording that can be used of {len(recordings)}{first},"
                " expected stereo audio with a .json of its words beside it"
            )
        frame_s = mimi.config.frame_samples / mimi.config.sample_rate
        result = Encoded(
            recordings=len(entries),
            hours=sum(entry.num_frames for entry in entries) * frame_s / 3600,
            words=sum(entry.num_words for entry in entries),
            bad_files=bad,
        )
        write_folder(folder, entries, wanted)
        summary = {**result._asdict(), "bad_files": [file._asdict() for file in bad]}
        (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        finish(folder, config.destination)
    return result


def format_of(lm: MoshiConfig, mimi_params: Params, tokenizer: Path) -> TokenFormat:
    """What the tokens of a checkpoint mean.

    Raises:
        FileNotFoundError: it has no tokenizer.
    """
    digest = hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    return TokenFormat.of(lm, codec=codec_fingerprint(mimi_params), tokenizer=digest)


def codec_fingerprint(params: Params) -> int:
    """A number that changes with any bit that codes depend on, and with no other.

    A better decoder for the same codes keeps it.
    """
    listening = {name: part for name, part in params.items() if name not in _DECODING}
    quantizer = {
        half: {name: leaf for name, leaf in leaves.items() if name != "output_projection"}
        for half, leaves in params["quantizer"].items()
    }
    return fingerprint({**listening, "quantizer": quantizer})


@dataclass(frozen=True, kw_only=True)
class _Encoder:
    """Recordings to streams."""

    codec: BlockCodec
    lm: MoshiConfig
    encode: Callable[[str], list[int]]

    def __call__(
        self, recordings: Sequence[Recording]
    ) -> list[tuple[Int32[np.ndarray, "K T"], int]]:
        """The streams of each, and how many words are in them.

        Raises:
            ValueError, OSError: audio or words of one of them cannot be used.
        """
        mimi = self.codec.mimi.config
        spoken = [self._words(recording) for recording in recordings]
        signals = [
            read_pieces(Path(ref.path), channel, mimi.sample_rate)
            for recording in recordings
            for ref, channel in recording.channels
        ]
        blocks = zip(*self.codec.encode(signals), strict=True)
        codes = [np.concatenate(row, axis=1) for row in blocks]
        if not codes:
            raise ValueError("got no samples, expected at least one")
        streams = []
        for number, words in enumerate(spoken):
            agent, user = codes[2 * number : 2 * number + 2]
            length = min(agent.shape[1], user.shape[1])
            text = text_stream(
                words,
                length,
                self.encode,
                frame_rate=mimi.sample_rate / mimi.frame_samples,
                padding=self.lm.existing_text_padding_id,
                end_padding=self.lm.existing_text_end_padding_id,
            )
            of_agent = agent[: self.lm.num_agent_codebooks, :length]
            of_user = user[: self.lm.num_user_codebooks, :length]
            streams.append((np.concatenate([text[None], of_agent, of_user]), len(words)))
        return streams

    def _words(self, recording: Recording) -> list[Any]:
        if recording.transcript is None:
            raise ValueError(
                "got no .json with alignments beside it, expected the words of the left channel"
            )
        return recording.transcript()[0]


def _write(
    folder: Path, name: str, recordings: Sequence[Recording], encoder: _Encoder, batch: int
) -> _Shard:
    """One shard: complete or not there."""
    entries, bad = list[Entry](), list[BadFile]()
    writer = open_shard(folder / f".{name}")
    try:
        for group in _parts(recordings, batch):
            for recording, made in zip(group, _each(group, encoder), strict=True):
                if isinstance(made, str):
                    bad.append(BadFile(recording.name, made))
                    continue
                streams, words = made
                writer.write(pack(streams))
                entries.append(
                    Entry(
                        name=recording.name,
                        num_frames=streams.shape[1],
                        num_words=words,
                        shard=name,
                        row=len(entries),
                    )
                )
    finally:
        writer.close()
    os.replace(folder / f".{name}", folder / name)
    return _Shard(entries, bad)


def _each(group: Sequence[Recording], encoder: _Encoder) -> list[Any]:
    """Streams of each recording, or why there are none: together, or one by one to find that."""
    try:
        return list(encoder(group))
    except (ValueError, OSError) as error:
        if len(group) == 1:
            return [str(error)]
        return [_each([recording], encoder)[0] for recording in group]


def _parts(items: Sequence[Recording], size: int) -> Iterator[Sequence[Recording]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _to_line(name: str, shard: _Shard) -> str:
    entries = [dataclasses.asdict(entry) for entry in shard.entries]
    return json.dumps({"shard": name, "entries": entries, "bad": shard.bad}) + "\n"


def _read_log(folder: Path) -> dict[str, _Shard]:
    """The shards that an earlier run has finished."""
    if not (folder / _LOG).is_file():
        return {}
    text, done = (folder / _LOG).read_text(encoding="utf-8"), {}
    for line in text[: text.rfind("\n") + 1].splitlines():
        values = json.loads(line)
        if (folder / values["shard"]).is_file():
            entries = [Entry(**entry) for entry in values["entries"]]
            done[values["shard"]] = _Shard(entries, [BadFile(*bad) for bad in values["bad"]])
    return done
