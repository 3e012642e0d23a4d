"""Cutting: a part of a recording sounds as the whole does, shards hold what was planned."""

import dataclasses

import numpy as np
import pytest

from grpo.corpora import AudioRef, Recording, TwoChannelPcm, Word
from grpo.corpora.pcm import DecodedPcm
from grpo.records import ManifestEntry, SegmentRecord
from grpo.segments import FRAME_SAMPLES, SAMPLE_RATE, Segment
from grpo.shards import context_samples, plan_shards, read_24k, write_shard
from mimi_jax.audio_file import resample, write_audio

pytest.importorskip("soundfile")
pytest.importorskip("soxr")


def segment(first=100, frames=50, conversation="c", axis="turn", x_channel=0):
    return Segment(
        axis=axis,
        conversation=conversation,
        x_channel=x_channel,
        start_s=first * 0.08,
        end_s=(first + frames) * 0.08,
        labels={"user_turn_end_s": (first + 5) * 0.08},
    )


def noise(seconds, rate=SAMPLE_RATE, seed=0):
    """Speech band only: what lies near half the sample rate is the resampler's business."""
    rng = np.random.default_rng(seed)
    return resample(rng.normal(0, 0.1, (2, round(seconds * 8000))).astype(np.float32), 8000, rate)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("start", [0, 1921, 60_000])
def test_a_part_sounds_as_the_whole_does(rate, start):
    pcm = noise(4, rate)
    audio = DecodedPcm(pcm, rate)
    part = read_24k(TwoChannelPcm("a", (audio, 0), (audio, 1), two_files=False), start, 24_000)
    whole = resample(pcm, rate, SAMPLE_RATE)[:, start : start + 24_000]
    np.testing.assert_allclose(part, whole, atol=0 if rate == SAMPLE_RATE else 2e-5)


def test_after_the_end_there_is_silence():
    pcm = noise(2)
    audio = DecodedPcm(pcm, SAMPLE_RATE)
    recording = TwoChannelPcm("a", (audio, 0), (audio, 1), two_files=False)
    part = read_24k(recording, 47_000, 2_000)
    np.testing.assert_array_equal(part[:, :1000], pcm[:, 47_000:])
    assert not part[:, 1000:].any()
    with pytest.raises(ValueError, match=r"got no audio at 4\.00 s"):
        read_24k(recording, 96_000, 2_000)


def test_context_is_whole_frames_and_ends_where_the_recording_begins():
    assert context_samples(segment(), 1.0) == 12 * FRAME_SAMPLES
    assert context_samples(segment(), 0.0) == 0
    assert context_samples(segment(), 30.0) == 100 * FRAME_SAMPLES


def said():
    words = [Word("early", 1.0, 1.5), Word("edge", 7.3, 7.7), Word("late", 13.0, 13.1)]
    return words, [Word("other", 8.0, 9.0)]


@pytest.fixture
def corpus(tmp_path):
    recordings = {}
    for number, name in enumerate("abc"):
        path = tmp_path / f"{name}.wav"
        write_audio(path, noise(20, seed=number), SAMPLE_RATE)
        ref = AudioRef(path)
        recordings[name] = Recording(name=name, channels=((ref, 0), (ref, 1)), transcript=said)
    return recordings


def entry(name, number=0, split="train", **window):
    return ManifestEntry(
        id=f"{name}/{number}",
        split=split,
        segment=segment(100 + number, conversation=name, **window),
        n_context_samples=5 * FRAME_SAMPLES,
        shard="",
        row=0,
        user_lufs=-30.0,
        agent_lufs=-20.0,
    )


def plan(entries, corpus, **options):
    options = {
        "without_transcript": frozenset(),
        "store_agent": True,
        "level_lufs": None,
    } | options
    return plan_shards(entries, corpus, **options)


def records_of(folder, name):
    from grain.sources import ArrayRecordDataSource

    source = ArrayRecordDataSource(str(folder / name))
    return [SegmentRecord.from_bytes(source[row]) for row in range(len(source))]


def test_a_shard_holds_audio_and_words_of_its_segments(corpus, tmp_path):
    (shard,) = plan([entry("b", 1, x_channel=1), entry("a")], corpus)
    report = write_shard(tmp_path, shard)
    assert [(e.id, e.shard, e.row) for e in report.entries] == [
        ("a/0", "turn-train-00000.array_record", 0),
        ("b/1", "turn-train-00000.array_record", 1),
    ]
    assert report.lost == []
    first, second = records_of(tmp_path, shard.name)
    whole = np.rint(noise(20, seed=1) * 32768)
    span = slice(96 * FRAME_SAMPLES, 151 * FRAME_SAMPLES)
    np.testing.assert_array_equal(second.user, whole[1, span])
    np.testing.assert_array_equal(second.agent, whole[0, span])
    assert [word.text for word in first.user_words] == ["edge"]  # 7.6 to 12 s
    assert [word.text for word in first.agent_words] == ["other"]
    assert [word.text for word in second.user_words] == ["other"]


def test_options_of_what_is_stored(corpus, tmp_path):
    (shard,) = plan(
        [entry("a")],
        corpus,
        store_agent=False,
        level_lufs=-24.0,
        without_transcript=frozenset({"a"}),
    )
    write_shard(tmp_path, shard)
    (record,) = records_of(tmp_path, shard.name)
    assert record.agent is record.user_words is record.agent_words is None
    louder = noise(20, seed=0)[0, 95 * FRAME_SAMPLES : 150 * FRAME_SAMPLES] * 10 ** (6 / 20)
    np.testing.assert_allclose(record.user / 32768, np.clip(louder, -1, 1), atol=1e-4)


def test_axes_and_splits_go_to_files_of_their_own(corpus, monkeypatch):
    monkeypatch.setattr("grpo.shards.SHARD_RECORDS", 2)
    entries = [entry("a", n) for n in range(3)] + [entry("b", split="val")]
    shards = plan([*entries, entry("c", axis="pause")], corpus)
    assert {shard.name: len(shard.entries) for shard in shards} == {
        "pause-train-00000.array_record": 1,
        "turn-train-00000.array_record": 2,
        "turn-train-00001.array_record": 1,
        "turn-val-00000.array_record": 1,
    }
    assert set(shards[0].recordings) == {"c"}


def test_a_recording_that_is_gone_costs_its_own_segments_only(corpus, tmp_path):
    gone = AudioRef(tmp_path / "gone.wav")
    corpus["a"] = dataclasses.replace(corpus["a"], channels=((gone, 0), (gone, 1)))
    (shard,) = plan([entry("a"), entry("b")], corpus)
    report = write_shard(tmp_path, shard)
    assert [(e.id, e.row) for e in report.entries] == [("b/0", 0)]
    ((name, reason),) = report.lost
    assert name == "a/0"
    assert "got no file there" in reason
    assert [record.id for record in records_of(tmp_path, shard.name)] == ["b/0"]
