"""Segment records: bytes there and back, cuts on the frame grid, manifest lines."""

import dataclasses

import msgpack
import numpy as np
import pytest

from grpo.corpora import Word
from grpo.records import (
    ManifestEntry,
    SegmentRecord,
    read_manifest,
    to_float32,
    to_int16,
    write_manifest,
)
from grpo.segments import FRAME_SAMPLES, Segment

RATE = 24_000


def segment(first=100, frames=50, x_channel=0):
    return Segment(
        axis="turn",
        conversation="été/call.wav",
        x_channel=x_channel,
        start_s=first * 0.08,
        end_s=(first + frames) * 0.08,
        labels={"user_turn_end_s": 9.75},
    )


def make_record(with_agent=False, **fields):
    context = 2 * RATE
    samples = context + segment().num_frames * FRAME_SAMPLES
    rng = np.random.default_rng(0)
    user, agent = rng.integers(-(2**15), 2**15, (2, samples)).astype(np.int16)
    fields = {"id": "name", "segment": segment(), "n_context_samples": context} | fields
    return SegmentRecord(user=user, agent=agent if with_agent else None, **fields)


def test_bytes_there_and_back():
    for with_agent in (False, True):
        record = make_record(with_agent)
        again = SegmentRecord.from_bytes(record.to_bytes())
        assert (again.id, again.segment) == (record.id, record.segment)
        assert again.n_context_samples == record.n_context_samples
        np.testing.assert_array_equal(again.user, record.user)
        if with_agent:
            np.testing.assert_array_equal(again.agent, record.agent)
        else:
            assert again.agent is None


def test_words_and_ipus_there_and_back():
    window = dataclasses.replace(segment(), user_ipus=((7.5, 9.0),), agent_ipus=((9.9, 12.0),))
    words = (Word("été", 7.5, 8.0), Word("call", 8.1, 9.0))
    record = make_record(segment=window, user_words=words, agent_words=())
    again = SegmentRecord.from_bytes(record.to_bytes())
    assert again.segment == window
    assert again.user_words == words
    assert again.agent_words == ()
    assert SegmentRecord.from_bytes(make_record().to_bytes()).user_words is None


def test_sixteen_bits():
    pcm = np.array([0.0, 0.5, -1.0, 1.0, 2.0, -2.0, 1 / 32768], np.float32)
    steps = to_int16(pcm)
    assert steps.tolist() == [0, 16384, -32768, 32767, 32767, -32768, 1]
    np.testing.assert_array_equal(to_int16(to_float32(steps)), steps)


def test_records_of_another_format_are_refused():
    values = msgpack.unpackb(make_record().to_bytes())
    with pytest.raises(ValueError, match=r"got schema 1, expected 2; extract the segments again"):
        SegmentRecord.from_bytes(msgpack.packb(values | {"schema": 1}))
    with pytest.raises(ValueError, match=r"got 3 samples of audio, expected 144000"):
        SegmentRecord.from_bytes(msgpack.packb(values | {"user": b"123456"}))


def test_manifest_lines(tmp_path):
    entries = [
        ManifestEntry(
            id=f"call/{row}",
            split="train",
            segment=segment(frames=10 + row),
            n_context_samples=row,
            shard="turn-train-00000.array_record",
            row=row,
            corpus="fisher",
            user_speaker="1234",
            user_lufs=-23.5,
        )
        for row in range(3)
    ]
    write_manifest(tmp_path, entries)
    assert read_manifest(tmp_path) == entries
    assert len((tmp_path / "manifest.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_a_folder_without_a_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got no .*manifest\.jsonl, expected a folder"):
        read_manifest(tmp_path)
