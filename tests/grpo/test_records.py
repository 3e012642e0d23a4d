"""Segment records: bytes there and back, cuts on the frame grid, manifest lines."""

import msgpack
import numpy as np
import pytest

from grpo.records import (
    ManifestEntry,
    SegmentRecord,
    cut_record,
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


def recording(seconds):
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (2, round(seconds * RATE))).astype(np.float32)


def cut(pcm, *, window=None, max_context_s=30.0, with_agent=False):
    return cut_record(
        "name", window or segment(), pcm, max_context_s=max_context_s, with_agent=with_agent
    )


def test_bytes_there_and_back():
    for with_agent in (False, True):
        record = cut(recording(20), with_agent=with_agent)
        again = SegmentRecord.from_bytes(record.to_bytes())
        assert (again.id, again.segment) == (record.id, record.segment)
        assert again.n_context_samples == record.n_context_samples
        np.testing.assert_array_equal(again.user, record.user)
        if with_agent:
            np.testing.assert_array_equal(again.agent, record.agent)
        else:
            assert again.agent is None


def test_the_window_and_what_came_before_it():
    pcm = recording(20)
    for x_channel in (0, 1):
        record = cut(pcm, window=segment(x_channel=x_channel), max_context_s=2.0, with_agent=True)
        start, end = 100 * FRAME_SAMPLES, 150 * FRAME_SAMPLES
        assert record.n_context_samples == 2 * RATE
        np.testing.assert_array_equal(record.user, to_int16(pcm[x_channel, start - 48_000 : end]))
        np.testing.assert_array_equal(
            record.agent, to_int16(pcm[1 - x_channel, start - 48_000 : end])
        )


def test_context_is_whole_frames_and_ends_where_the_recording_begins():
    pcm = recording(20)
    assert cut(pcm, max_context_s=1.0).n_context_samples == 12 * FRAME_SAMPLES
    assert cut(pcm, max_context_s=0.0).n_context_samples == 0
    assert cut(pcm, max_context_s=30.0).n_context_samples == 100 * FRAME_SAMPLES


def test_a_last_frame_that_outlasts_the_recording_is_filled_with_silence():
    pcm = recording(11.99)
    record = cut(pcm, max_context_s=0.0)
    assert len(record.user) == 50 * FRAME_SAMPLES
    inside = pcm.shape[1] - 100 * FRAME_SAMPLES
    np.testing.assert_array_equal(record.user[:inside], to_int16(pcm[0, 100 * FRAME_SAMPLES :]))
    assert not record.user[inside:].any()


def test_sixteen_bits():
    pcm = np.array([0.0, 0.5, -1.0, 1.0, 2.0, -2.0, 1 / 32768], np.float32)
    steps = to_int16(pcm)
    assert steps.tolist() == [0, 16384, -32768, 32767, 32767, -32768, 1]
    np.testing.assert_array_equal(to_int16(to_float32(steps)), steps)


def test_records_of_another_format_are_refused():
    values = msgpack.unpackb(cut(recording(20)).to_bytes())
    with pytest.raises(ValueError, match=r"got schema 2, expected 1; extract the segments again"):
        SegmentRecord.from_bytes(msgpack.packb(values | {"schema": 2}))
    with pytest.raises(ValueError, match=r"got 3 samples of audio, expected 288000"):
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
        )
        for row in range(3)
    ]
    write_manifest(tmp_path, entries)
    assert read_manifest(tmp_path) == entries
    assert len((tmp_path / "manifest.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_a_folder_without_a_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got no .*manifest\.jsonl, expected a folder"):
        read_manifest(tmp_path)
