"""Recordings to segment folders: the sample's designed events, bad files, all or nothing."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from grpo.extract import ExtractConfig, extract
from grpo.records import SegmentRecord, read_manifest, to_int16
from grpo.segments import FRAME_SAMPLES, SAMPLE_RATE, SegmentConfig
from grpo.selection import SelectionConfig
from mimi_jax.audio_file import read_audio, write_audio
from rewards.intervals import clip

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

SAMPLE = Path(__file__).resolve().parents[2] / "moshi_jax" / "sample"
ALL = SelectionConfig(max_per_conversation=100)
TOLERANCE_S = 0.1


@pytest.fixture(scope="module")
def plan():
    """What the sample was made from: who says what, when."""
    return json.loads((SAMPLE / "conversation.json").read_text())


@pytest.fixture(scope="module")
def sample_segments(tmp_path_factory, plan):
    folder = tmp_path_factory.mktemp("segments") / "sample"
    config = ExtractConfig(selection=ALL, store_agent=True)
    summary = extract(SAMPLE / plan["audio"], folder, config)
    return folder, summary


@pytest.fixture(scope="module")
def short_recording(plan):
    """The first two turns of the sample: 16 s, one pause and one turn segment at least."""
    return read_audio(SAMPLE / plan["audio"], sample_rate=SAMPLE_RATE)[:, : 16 * SAMPLE_RATE]


def read_record(folder, entry):
    from grain.sources import ArrayRecordDataSource

    source = ArrayRecordDataSource(str(folder / entry.shard))
    return SegmentRecord.from_bytes(source[entry.row])


def designed_utterances(plan):
    """(channel, start, end, pauses) of every utterance, by start."""
    return sorted(
        (
            plan["speakers"][u["speaker"]]["channel"],
            u["start_s"],
            u["end_s"],
            [(pause["start_s"], pause["end_s"]) for pause in u["pauses"]],
        )
        for u in plan["utterances"]
    )


def of_axis(folder, axis):
    return [e.segment for e in read_manifest(folder) if e.segment.axis == axis]


def assert_same_times(found, expected):
    """Window times: the detector's error, and the grid, which widens by less than a frame."""
    assert sorted(channel for channel, *_ in found) == sorted(channel for channel, *_ in expected)
    for (_, start_s, end_s), (_, expected_start_s, expected_end_s) in zip(
        sorted(found), sorted(expected), strict=True
    ):
        assert -TOLERANCE_S - 0.08 <= start_s - expected_start_s <= TOLERANCE_S
        assert -TOLERANCE_S <= end_s - expected_end_s <= TOLERANCE_S + 0.08


def test_the_pause_segments_of_the_sample_are_those_it_was_made_with(sample_segments, plan):
    utterances = designed_utterances(plan)
    designed = [
        (channel, start, end, pauses)
        for channel, start, end, pauses in utterances
        if end - start > 4.0
        and pauses
        and not any(other != channel and s < end and e > start for other, s, e, _ in utterances)
    ]
    found = of_axis(sample_segments[0], "pause")
    assert len(designed) >= 4
    assert_same_times([(s.x_channel, s.start_s, s.end_s) for s in found], [d[:3] for d in designed])
    for segment in found:
        inside = [
            pause
            for channel, _, _, pauses in designed
            for pause in pauses
            if channel == segment.x_channel and segment.start_s < pause[0] < segment.end_s
        ]
        for pause in segment.labels["pauses"]:
            assert min(np.abs(np.subtract(pause, other)).max() for other in inside) <= TOLERANCE_S
        # The detector widens speech a little, so only clear pauses must be there.
        clear = [pause for pause in inside if pause[1] - pause[0] >= 0.5]
        assert len(segment.labels["pauses"]) >= len(clear)


def test_the_turn_segments_of_the_sample_are_those_it_was_made_with(sample_segments, plan):
    utterances = sorted(designed_utterances(plan), key=lambda u: (u[1], u[2]))
    pairs = [
        (one, two)
        for one, two in itertools.pairwise(utterances)
        if one[0] != two[0]
        and min(one[2] - one[1], two[2] - two[1]) > 5.0
        and -0.4 <= two[1] - one[2] <= 0.4
    ]
    found = of_axis(sample_segments[0], "turn")
    assert len(pairs) >= 4
    assert_same_times(
        [(s.x_channel, s.start_s, s.end_s) for s in found],
        [(one[0], one[1], two[2]) for one, two in pairs],
    )
    ends = sorted((s.x_channel, s.labels["user_turn_end_s"]) for s in found)
    np.testing.assert_allclose(ends, sorted((one[0], one[2]) for one, _ in pairs), atol=TOLERANCE_S)


def test_the_backchannels_and_interruptions_of_the_sample(sample_segments, plan):
    events = {kind: [] for kind in ("backchannel", "barge_in")}
    for u in plan["utterances"]:
        if u["kind"] in events:
            channel = plan["speakers"][u["speaker"]]["channel"]
            events[u["kind"]].append((channel, u["start_s"], u["end_s"]))
    said = [
        (1 - segment.x_channel, *backchannel)
        for segment in of_axis(sample_segments[0], "backchannel")
        for backchannel in segment.labels["backchannels"]
    ]
    np.testing.assert_allclose(sorted(said), sorted(events["backchannel"]), atol=TOLERANCE_S)
    barge_ins = [
        (segment.x_channel, *segment.labels["interruption"])
        for segment in of_axis(sample_segments[0], "interruption")
    ]
    np.testing.assert_allclose(sorted(barge_ins), sorted(events["barge_in"]), atol=TOLERANCE_S)


def test_records_hold_the_audio_of_the_window_and_before(sample_segments, plan):
    folder, _ = sample_segments
    pcm = read_audio(SAMPLE / plan["audio"], sample_rate=SAMPLE_RATE)
    for entry in read_manifest(folder)[::5]:
        record = read_record(folder, entry)
        segment = record.segment
        # Through JSON and msgpack, tuples become lists: compare what the labels say.
        assert record.id == entry.id
        assert segment.relative_labels() == entry.segment.relative_labels()
        assert record.n_context_samples == entry.n_context_samples
        start = segment.start_frame * FRAME_SAMPLES
        assert record.n_context_samples == min(
            start, 30 * SAMPLE_RATE // FRAME_SAMPLES * FRAME_SAMPLES
        )
        end = start + segment.num_frames * FRAME_SAMPLES
        first = start - record.n_context_samples
        expected = to_int16(pcm[:, first:end])
        np.testing.assert_array_equal(record.user, expected[segment.x_channel])
        np.testing.assert_array_equal(record.agent, expected[1 - segment.x_channel])


def test_summary_and_config_say_what_was_done(sample_segments):
    folder, summary = sample_segments
    assert json.loads((folder / "summary.json").read_text()) == summary
    entries = read_manifest(folder)
    for axis, counts in summary["segments"].items():
        own = [e for e in entries if e.segment.axis == axis]
        assert counts == {"train": len(own), "val": 0}
        hours = sum(e.segment.duration_s for e in own) / 3600
        assert summary["segment_hours"][axis] == pytest.approx(hours, abs=1e-4)
        assert summary["found"][axis] == len(own)
    assert summary["recordings"] == 1
    assert summary["rejects"]["pause/shorter than tau_pause_s"] > 0
    config = json.loads((folder / "config.json").read_text())
    assert config["selection"]["max_per_conversation"] == 100
    assert config["speech"]["vad_backchannel"]["min_speech_s"] == 0.12
    assert {e.shard for e in entries} == {p.name for p in folder.glob("*.array_record")}
    assert len({e.id for e in entries}) == len(entries)


def test_bad_files_are_listed_and_the_others_extracted(tmp_path, short_recording):
    source = tmp_path / "corpus"
    (source / "deep").mkdir(parents=True)
    write_audio(source / "deep" / "good.flac", short_recording, SAMPLE_RATE)
    write_audio(source / "mono.wav", short_recording[0], SAMPLE_RATE)
    (source / "broken.wav").write_bytes(b"RIFF, but nothing else")
    (source / "notes.txt").write_text("not audio, and not looked at")
    seen = []
    summary = extract(source, tmp_path / "out", progress=lambda *call: seen.append(call))
    assert [bad["file"] for bad in summary["bad_files"]] == ["broken.wav", "mono.wav"]
    assert "got 1 channel(s), expected 2" in summary["bad_files"][1]["reason"]
    assert summary["recordings"] == 1
    assert {e.segment.conversation for e in read_manifest(tmp_path / "out")} == {"deep/good.flac"}
    assert seen[:3] == [("listening", n, 3) for n in (1, 2, 3)]
    shards = len(list((tmp_path / "out").glob("*.array_record")))
    assert seen[3:] == [("writing", n + 1, shards) for n in range(shards)]


def test_conversations_are_split_whole_and_capped(tmp_path, short_recording):
    source = tmp_path / "corpus"
    source.mkdir()
    for number in range(4):
        write_audio(source / f"{number}.flac", short_recording * (1 - 0.1 * number), SAMPLE_RATE)
    selection = SelectionConfig(val_fraction=0.25, max_per_conversation=1)
    config = ExtractConfig(axes=("pause",), selection=selection, max_context_s=0.0)
    summary = extract(source, tmp_path / "out", config)
    assert summary["segments"] == {"pause": {"train": 3, "val": 1}}
    assert summary["found"]["pause"] > 4 - 1
    entries = read_manifest(tmp_path / "out")
    assert len({e.segment.conversation for e in entries}) == 4
    for entry in entries:
        assert entry.shard == f"pause-{entry.split}-00000.array_record"
        assert entry.n_context_samples == 0
        assert read_record(tmp_path / "out", entry).id == entry.id


def test_a_resampled_recording_gives_the_same_windows(tmp_path, plan, short_recording):
    from mimi_jax.audio_file import resample

    config = ExtractConfig(selection=ALL)
    for rate in (24_000, 48_000):
        write_audio(tmp_path / f"{rate}.wav", resample(short_recording, 24_000, rate), rate)
        extract(tmp_path / f"{rate}.wav", tmp_path / f"out{rate}", config)
    windows = [
        [(e.segment.axis, e.segment.x_channel) for e in read_manifest(tmp_path / name)]
        for name in ("out24000", "out48000")
    ]
    assert windows[0] == windows[1] != []


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["listening", "writing"])
def test_killed_and_started_again_gives_the_same_bytes(tmp_path, short_recording, stage):
    """SIGKILL after the second report of a stage, from outside."""
    source = tmp_path / "corpus"
    source.mkdir()
    for number in range(4):
        write_audio(source / f"{number}.flac", short_recording * (1 - 0.1 * number), SAMPLE_RATE)
    extract(source, tmp_path / "whole")

    code = f"""
import os, signal
from pathlib import Path
from grpo.extract import extract

def tell(what, done, total):
    if (what, done) == ({stage!r}, 2):
        os.kill(os.getpid(), signal.SIGKILL)

extract(Path({str(source)!r}), Path({str(tmp_path / "out")!r}), progress=tell)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=SAMPLE.parents[1],
        # A kill must not leave half an entry in a cache that others read.
        env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    seen = []
    extract(source, tmp_path / "out", progress=lambda *call: seen.append(call))
    assert seen[0] == ("listening", {"listening": 2, "writing": 4}[stage], 4)  # not heard twice
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_several_processes_give_the_same_bytes(tmp_path, short_recording):
    source = tmp_path / "corpus"
    source.mkdir()
    for number in range(4):
        write_audio(source / f"{number}.flac", short_recording * (1 - 0.1 * number), SAMPLE_RATE)
    (source / "bad.flac").write_bytes(b"fLaC")
    extract(source, tmp_path / "one")
    extract(source, tmp_path / "two", workers=2)
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes(), path.name


def test_other_rules_do_not_hear_again(tmp_path, short_recording, monkeypatch):
    write_audio(tmp_path / "a.flac", short_recording, SAMPLE_RATE)
    strict = ExtractConfig(segments=SegmentConfig(tau_pause_s=60.0), axes=("pause",))
    with pytest.raises(ValueError, match="got no segment"):
        extract(tmp_path / "a.flac", tmp_path / "out", strict)
    monkeypatch.setattr("grpo.survey.hear", lambda *a, **k: pytest.fail("heard twice"))
    summary = extract(tmp_path / "a.flac", tmp_path / "out", ExtractConfig(axes=("pause",)))
    assert summary["segments"]["pause"]["train"] >= 1


def test_ipus_of_window_and_context_are_stored(sample_segments):
    for entry in read_manifest(sample_segments[0]):
        segment = entry.segment
        start_s = segment.start_s - entry.n_context_samples / SAMPLE_RATE
        for start, end in (*segment.user_ipus, *segment.agent_ipus):
            assert end > start_s
            assert start < segment.end_s
        if segment.axis == "pause":
            assert not clip(segment.agent_ipus, segment.start_s + 0.08, segment.end_s - 0.08)
            silences = segment.labels["pauses"]
            ends = [end for _, end in segment.user_ipus]
            assert all(min(abs(p[0] - end) for end in ends) < 1e-6 for p in silences)


def test_nothing_found_is_an_error_with_the_reasons(tmp_path, short_recording):
    write_audio(tmp_path / "a.flac", short_recording, SAMPLE_RATE)
    strict = SegmentConfig(tau_pause_s=60.0, tau_turn_s=60.0)
    with pytest.raises(ValueError, match="got no segment from 1 readable recording") as error:
        extract(
            tmp_path / "a.flac",
            tmp_path / "out",
            ExtractConfig(axes=("pause", "turn"), segments=strict),
        )
    assert "x pause/shorter than tau_pause_s" in str(error.value)
    assert "x turn/shorter than tau_turn_s" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_only_bad_files_is_an_error_that_names_one(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    with pytest.raises(ValueError, match=r"0 readable recording.*1 unusable .*broken\.wav"):
        extract(tmp_path, tmp_path / "out")


def test_two_recordings_of_one_name_are_refused(tmp_path):
    for disc in ("1", "2"):
        (tmp_path / disc / "abc" / "processed").mkdir(parents=True)
        (tmp_path / disc / "abc" / "metadata.json").write_text(
            '{"speakers": [{"user_id": 1, "channel": "L"}, {"user_id": 2, "channel": "R"}]}'
        )
        (tmp_path / disc / "abc" / "processed" / "abc.mp3").write_bytes(b"x")
    with pytest.raises(ValueError, match="got 2 recordings named 'abc', expected a name for each"):
        extract(tmp_path, tmp_path / "out", ExtractConfig(corpus="candor"))


def test_what_is_there_is_never_overwritten(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(ValueError, match="got something there already, expected a new or empty"):
        extract(SAMPLE, tmp_path)
    with pytest.raises(ValueError, match="got something there already"):
        extract(SAMPLE, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize(
    ("field", "value"), [("axes", ()), ("axes", ("bc",)), ("max_context_s", -1.0)]
)
def test_impossible_values_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: got .*, expected "):
        ExtractConfig(**{field: value})
