"""The three verbs. Files appear complete or not at all, and an interrupted folder is taken up."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro
from flax import nnx

from convert import load_mimi
from grpo.corpora.pcm import AudioRef, open_pcm
from layers_jax import atomic_path
from layers_jax.functional import Params, abstract
from mimi_jax import BlockCodec, Mimi, check_target, read_audio, write_audio
from moshi_jax.codec.audio import AUDIO_SUFFIXES, num_resampled, open_target, read_pieces
from moshi_jax.codec.code_file import (
    CODE_SUFFIXES,
    CodeHeader,
    read_codes,
    read_header,
    write_codes,
)
from moshi_jax.codec.quality import log_spectral_distance_db, snr_db
from moshi_jax.codec.work import Job, find_jobs, groups
from moshi_jax.sample import conversation_path
from moshi_jax.stream import embedded_checkpoint

__all__ = ["main"]

WAVE_SUFFIXES = {".wav", ".flac"}


@dataclass(frozen=True, kw_only=True)
class Common:
    """What all verbs take."""

    checkpoint: Path | None = None
    """Checkpoint folder; the embedded one by default."""
    batch: int = 4
    """Channels that run side by side; on a CPU they share each read of the weights."""
    overwrite: bool = False
    """Make targets again that are there already."""


@dataclass(frozen=True, kw_only=True)
class Encode(Common):
    """Audio to codes: a file, or every audio file below a folder.

    Every channel is encoded by itself, as a live session would. Targets that are there are left
    alone, so that the same command takes up an interrupted folder.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """Audio of any rate that libsndfile reads, or a folder."""
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """A .npz or .safetensors file, or a folder."""
    codebooks: int | None = None
    """Codebooks a frame; as many as the checkpoint's language model has by default."""
    channel: int | None = None
    """Only this channel, from 0; all by default."""
    format: Literal["npz", "safetensors"] = "safetensors"
    """Of the targets in a folder."""


@dataclass(frozen=True, kw_only=True)
class Decode(Common):
    """Codes to audio: a file, or every file of codes below a folder."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """What `encode` wrote, or a folder."""
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """A .wav or .flac file, or a folder."""
    codebooks: int | None = None
    """Use only so many of the codebooks; all by default."""
    format: Literal["wav", "flac"] = "flac"
    """Of the targets in a folder."""


@dataclass(frozen=True, kw_only=True)
class Roundtrip:
    """Audio to codes and back: how far is what is heard from what was said?

    The signal-to-noise ratio of a neural codec is low even where it sounds right; the log spectral
    distance follows the ear better. Both are of the first channel.
    """

    source: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="IN")] = None
    """An audio file; the sample conversation by default."""
    target: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")] = None
    """Where to write what is heard with the most codebooks (.wav or .flac)."""
    checkpoint: Path | None = None
    """Checkpoint folder; the embedded one by default."""
    codebooks: tuple[int, ...] | None = None
    """Numbers of codebooks to try; by default one, and as many as the language model has."""


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; see `Encode`, `Decode` and `Roundtrip`."""
    verbs: dict[str, Callable[..., int]] = {
        "encode": _encode, "decode": _decode, "roundtrip": _roundtrip
    }  # fmt: skip
    options = tyro.extras.subcommand_cli_from_dict(
        {"encode": Encode, "decode": Decode, "roundtrip": Roundtrip},
        args=argv,
        prog="moshi-jax codec",
    )
    return verbs[type(options).__name__.lower()](options)


def _encode(options: Encode) -> int:
    mimi, params = _load(options.checkpoint, options.codebooks)
    rate = mimi.config.sample_rate
    jobs = find_jobs(
        options.source,
        options.target,
        sources=AUDIO_SUFFIXES,
        targets=CODE_SUFFIXES,
        suffix=f".{options.format}",
    )

    def rows(job: Job) -> int:
        with open_pcm(AudioRef(job.source)) as pcm:
            return 1 if options.channel is not None else pcm.channels

    def header(job: Job) -> CodeHeader:
        with open_pcm(AudioRef(job.source)) as pcm:
            if options.channel is not None and not 0 <= options.channel < pcm.channels:
                raise ValueError(
                    f"--channel is {options.channel}, expected 0 to {pcm.channels - 1}: "
                    f"{job.source} has {pcm.channels}"
                )
            return CodeHeader.of(mimi.config, num_resampled(pcm, rate))

    def done(job: Job) -> bool:
        there, wanted = read_header(job.target), header(job)
        if there != wanted:
            raise ValueError(
                f"{job.target} holds codes of other audio or settings ({there}), expected {wanted};"
                " use --overwrite or another target"
            )
        return True

    def work(group: Sequence[Job], codec: BlockCodec) -> float:
        headers = [header(job) for job in group]
        channels = [
            [options.channel] if options.channel is not None else range(rows(job)) for job in group
        ]
        signals = [
            read_pieces(job.source, channel, rate)
            for job, those in zip(group, channels, strict=True)
            for channel in those
        ]
        blocks = zip(*codec.encode(signals), strict=True)
        codes = [np.concatenate(row, axis=1) for row in blocks]
        for job, those, head in zip(group, channels, headers, strict=True):
            if not codes:
                raise ValueError(f"{job.source} has no samples, expected at least one")
            of_file, codes = codes[: len(those)], codes[len(those) :]
            length = -(-head.num_samples // mimi.config.frame_samples)
            write_codes(job.target, np.stack([row[:, :length] for row in of_file]), head)
        return sum(head.num_samples for head in headers) / rate

    return _run(options, jobs, rows, done, work, (mimi, params))


def _decode(options: Decode) -> int:
    jobs = find_jobs(
        options.source,
        options.target,
        sources=CODE_SUFFIXES,
        targets=WAVE_SUFFIXES,
        suffix=f".{options.format}",
    )
    mimi, params = _load(options.checkpoint, None)

    rate, bins = mimi.config.sample_rate, mimi.config.quantizer.bins

    def work(group: Sequence[Job], codec: BlockCodec) -> float:
        read = [read_codes(job.source) for job in group]
        for job, (_, head) in zip(group, read, strict=True):
            if (head.sample_rate, head.bins) != (rate, bins):
                raise ValueError(
                    f"{job.source} is of a codec with {head.bins} entries a codebook at "
                    f"{head.sample_rate} Hz, expected {bins} at {rate}; name its --checkpoint"
                )
        left = [head.num_samples for _, head in read]
        signals = [[row[: options.codebooks]] for codes, _ in read for row in codes]
        with ExitStack() as stack:
            files = [
                stack.enter_context(
                    open_target(stack.enter_context(atomic_path(job.target)), len(codes), rate)
                )
                for job, (codes, _) in zip(group, read, strict=True)
            ]
            for block in codec.decode(signals):
                rows_of_block = iter(block)
                for index, (codes, _) in enumerate(read):
                    pcm = np.stack([next(rows_of_block) for _ in codes])[:, : left[index]]
                    files[index].write(np.clip(pcm.T, -1, 32767 / 32768))
                    left[index] -= pcm.shape[1]
        return sum(head.num_samples for _, head in read) / rate

    def rows(job: Job) -> int:
        return len(read_codes(job.source)[0])

    return _run(options, jobs, rows, lambda job: True, work, (mimi, params))


def _run(
    options: Common,
    jobs: Sequence[Job],
    rows: Callable[[Job], int],
    done: Callable[[Job], bool],
    work: Callable[[Sequence[Job], BlockCodec], float],
    model: tuple[Mimi, Params],
) -> int:
    """Does what is not done; a file that cannot be used is named at the end and stops no other."""
    failed: dict[Path, str] = {}
    open_jobs = []
    for job in jobs:
        try:
            if options.overwrite or not job.target.exists() or not done(job):
                rows(job)
                open_jobs.append(job)
        except (ValueError, OSError) as error:
            failed[job.source] = str(error)
    skipped = len(jobs) - len(open_jobs) - len(failed)
    if skipped:
        print(f"{skipped} of {len(jobs)} are there already", file=sys.stderr)
    codec = BlockCodec(*model, batch=options.batch)
    finished, audio_s, started = 0, 0.0, time.perf_counter()
    for group in groups(open_jobs, rows, options.batch):
        for target in {job.target.parent for job in group}:
            target.mkdir(parents=True, exist_ok=True)
        try:
            audio_s += work(group, codec)
        except (ValueError, OSError):
            for job in group:  # one of them: each by itself shows which
                try:
                    audio_s += work([job], codec)
                except (ValueError, OSError) as error:
                    failed[job.source] = str(error)
        finished += len(group)
        busy_s = time.perf_counter() - started
        print(
            f"{finished} of {len(open_jobs)}, {audio_s:.1f} s of audio in {busy_s:.1f} s",
            file=sys.stderr,
            flush=True,
        )
    if len(failed) == len(jobs) == 1:
        raise ValueError(next(iter(failed.values())))
    for source, reason in failed.items():
        print(f"failed: {source}: {reason}", file=sys.stderr)
    made = sum(job.source not in failed for job in open_jobs)
    print(f"{made} made, {skipped} there already, {len(failed)} failed")
    return 1 if failed else 0


def _roundtrip(options: Roundtrip) -> int:
    if options.target is not None:
        check_target(options.target)
    mimi, params = _load(options.checkpoint, max(options.codebooks) if options.codebooks else None)
    counts = sorted(options.codebooks or {1, mimi.config.num_codebooks})
    rate = mimi.config.sample_rate
    source = options.source or conversation_path()
    pcm = read_audio(source, sample_rate=rate)[0]
    codec = BlockCodec(mimi, params)
    codes = np.concatenate([block for (block,) in codec.encode([[pcm]])], axis=1)
    print(f"{source.name}, channel 0: {len(pcm) / rate:.2f} s, {codes.shape[1]} frames")
    heard = pcm
    for count in counts:
        blocks = [block for (block,) in codec.decode([[codes[:count]]])]
        heard = np.concatenate(blocks)[: len(pcm)]
        bits = count * np.log2(mimi.config.quantizer.bins) * mimi.config.frame_rate
        print(
            f"{count:>3} codebooks, {bits / 1e3:.2f} kbit/s: SNR {snr_db(pcm, heard):.2f} dB, "
            f"log spectral distance {log_spectral_distance_db(pcm, heard):.2f} dB"
        )
    if options.target is not None:
        write_audio(options.target, heard, rate)
    return 0


def _load(checkpoint: Path | None, codebooks: int | None) -> tuple[Mimi, Params]:
    """The codec of a folder with so many codebooks in use."""
    mimi, params = load_mimi(checkpoint or embedded_checkpoint())
    if codebooks is not None:
        config = replace(mimi.config, num_codebooks=codebooks)
        mimi = abstract(lambda: Mimi(config, rngs=nnx.Rngs(0)))
    return mimi, jax.device_put(params)
