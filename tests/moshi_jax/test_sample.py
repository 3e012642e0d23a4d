"""The sample conversation: its file, its listed times, and what a voice detector hears in it."""

from __future__ import annotations

import itertools
import json
import shutil
from typing import Any

import numpy as np
import pytest

from mimi_jax import read_audio, resample
from moshi_jax.sample import conversation_path
from moshi_jax.sample.make_conversation import build
from rewards import detect_speech, load_vad

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

Interval = tuple[float, float]
RATE = 24_000
SLACK_S = 1e-5  # times are listed to a microsecond
OTHER = {"agent": "user", "user": "agent"}
CHANNEL = {"agent": 0, "user": 1}


@pytest.fixture(scope="module")
def times() -> dict[str, Any]:
    return json.loads(conversation_path().with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def pcm() -> np.ndarray:
    return read_audio(conversation_path(), sample_rate=RATE, channels=2)


def span(item: dict[str, Any]) -> Interval:
    return item["start_s"], item["end_s"]


def length_s(item: dict[str, Any]) -> float:
    return item["end_s"] - item["start_s"]


def spoken_by(times: dict[str, Any], speaker: str) -> list[dict[str, Any]]:
    return [utterance for utterance in times["utterances"] if utterance["speaker"] == speaker]


def phrases_of(times: dict[str, Any], speaker: str) -> list[Interval]:
    return [span(phrase) for said in spoken_by(times, speaker) for phrase in said["phrases"]]


def mask(intervals: list[Interval], length: int, rate: int) -> np.ndarray:
    inside = np.zeros(length, bool)
    for start_s, end_s in intervals:
        inside[round(start_s * rate) : round(end_s * rate)] = True
    return inside


# -- the file --------------------------------------------------------------------------------------


def test_file_is_two_minutes_of_24_khz_stereo(times: dict[str, Any]) -> None:
    path = conversation_path()
    info = soundfile.info(path)
    assert (info.format, info.subtype) == ("FLAC", "PCM_16")
    assert (info.samplerate, info.channels) == (RATE, 2)
    assert 100 <= info.duration <= 150
    assert info.duration == pytest.approx(times["duration_s"], abs=SLACK_S)
    assert path.stat().st_size < 3e6
    assert path.name == times["audio"]
    assert times["sample_rate_hz"] == RATE
    assert {name: entry["channel"] for name, entry in times["speakers"].items()} == CHANNEL


def test_licence_lies_beside_it() -> None:
    text = conversation_path().with_name("LICENSE.md").read_text()
    for part in ("cmu_us_slt", "cmu_us_rms", "Permission is hereby granted", "Apache-2.0"):
        assert part in text


# -- the listed times ------------------------------------------------------------------------------


def test_utterances_are_sorted_and_inside_the_recording(times: dict[str, Any]) -> None:
    starts = [utterance["start_s"] for utterance in times["utterances"]]
    assert starts == sorted(starts)
    for utterance in times["utterances"]:
        assert 0 < utterance["start_s"] < utterance["end_s"] < times["duration_s"]
        assert utterance["kind"] in {"turn", "backchannel", "barge_in"}


def test_phrases_and_pauses_tile_each_utterance(times: dict[str, Any]) -> None:
    for utterance in times["utterances"]:
        phrases, pauses = utterance["phrases"], utterance["pauses"]
        assert utterance["text"] == " ".join(phrase["text"] for phrase in phrases)
        assert span(utterance) == (phrases[0]["start_s"], phrases[-1]["end_s"])
        between = [(a["end_s"], b["start_s"]) for a, b in itertools.pairwise(phrases)]
        assert between == [span(pause) for pause in pauses]
        assert all(length_s(phrase) > 0.25 for phrase in phrases)
        assert all(0.3 - SLACK_S <= length_s(pause) <= 0.9 + SLACK_S for pause in pauses)


def test_one_second_rule_finds_the_listed_utterances(times: dict[str, Any]) -> None:
    for speaker in CHANNEL:
        for before, after in itertools.pairwise(spoken_by(times, speaker)):
            assert after["start_s"] - before["end_s"] > 1.2


def test_events_are_those_of_the_utterances(times: dict[str, Any]) -> None:
    expected = []
    previous = None
    for utterance in times["utterances"]:
        speaker, kind = utterance["speaker"], utterance["kind"]
        expected += [("pause", speaker, *span(pause)) for pause in utterance["pauses"]]
        if kind == "backchannel":
            expected.append(("backchannel", speaker, *span(utterance)))
            continue
        if previous and kind == "barge_in":
            expected.append(("barge_in", speaker, utterance["start_s"], previous["end_s"]))
        elif previous:
            expected.append(("turn_change", speaker, previous["end_s"], utterance["start_s"]))
        assert previous is None or previous["speaker"] == OTHER[speaker]
        previous = utterance
    listed = [(event["kind"], event["speaker"], *span(event)) for event in times["events"]]
    assert sorted(listed) == sorted(expected)
    assert [event[2] for event in listed] == sorted(event[2] for event in listed)
    assert all(start < end for _, _, start, end in listed)


def test_backchannels_are_short_and_inside_one_long_utterance(times: dict[str, Any]) -> None:
    for reply in times["utterances"]:
        if reply["kind"] == "backchannel":
            assert length_s(reply) < 0.7
            hosts = [
                turn
                for turn in spoken_by(times, OTHER[reply["speaker"]])
                if turn["start_s"] < reply["start_s"] and reply["end_s"] < turn["end_s"]
            ]
            assert len(hosts) == 1
            assert length_s(hosts[0]) >= 5


# -- what it is for: the situations of arXiv 2606.11167, with either one as the user ---------------


@pytest.mark.parametrize("user", ["agent", "user"])
def test_every_situation_occurs(times: dict[str, Any], user: str) -> None:
    said = times["utterances"]
    model = OTHER[user]

    def replies(turn: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            reply
            for reply in spoken_by(times, model)
            if reply["start_s"] < turn["end_s"] and reply["end_s"] > turn["start_s"]
        ]

    def order(*utterances: dict[str, Any]) -> str:
        return "".join("X" if utterance["speaker"] == user else "Y" for utterance in utterances)

    mine = spoken_by(times, user)
    pause = [u for u in mine if length_s(u) >= 4 and u["pauses"] and not replies(u)]
    turn = [
        (first, second)
        for first, second in itertools.pairwise(said)
        if order(first, second) == "XY"
        and min(length_s(first), length_s(second)) >= 5
        and 0.1 <= second["start_s"] - first["end_s"] <= 0.4
    ]
    backchannel = [
        u
        for u in mine
        if length_s(u) >= 5 and replies(u) and all(length_s(reply) <= 1 for reply in replies(u))
    ]
    interruption = [
        four
        for four in zip(said, said[1:], said[2:], said[3:], strict=False)
        if order(*four) == "XYXY"
        and min(map(length_s, four)) >= 3
        and four[2]["start_s"] < four[1]["end_s"] < four[2]["end_s"]
    ]
    assert len(pause) >= 4
    assert len(turn) >= 3
    assert len(backchannel) >= 2
    assert len(interruption) >= 1


# -- the sound -------------------------------------------------------------------------------------


@pytest.mark.parametrize("speaker", CHANNEL)
def test_sound_inside_the_phrases_and_zeros_outside(
    times: dict[str, Any], pcm: np.ndarray, speaker: str
) -> None:
    channel = pcm[CHANNEL[speaker]]
    phrases = phrases_of(times, speaker)
    assert not channel[~mask(phrases, channel.size, RATE)].any()
    for start_s, end_s in phrases:
        phrase = channel[round(start_s * RATE) : round(end_s * RATE)]
        assert np.sqrt(np.mean(phrase**2)) > 0.03


def test_both_channels_are_equally_loud_and_never_clip(
    times: dict[str, Any], pcm: np.ndarray
) -> None:
    level_db = [
        10 * np.log10(np.mean(channel[mask(phrases_of(times, speaker), channel.size, RATE)] ** 2))
        for speaker, channel in zip(CHANNEL, pcm, strict=True)
    ]
    assert level_db == pytest.approx([-24, -24], abs=0.1)
    assert np.abs(pcm).max() < 0.7


def check_heard(phrases: list[Interval], heard: list[Interval], duration_s: float) -> None:
    """At least 95 % of the speech is heard, and nothing longer than 0.3 s where there is none."""
    length = round(duration_s * 1000)
    spoken, detected = mask(phrases, length, 1000), mask(heard, length, 1000)
    assert np.count_nonzero(spoken & detected) >= 0.95 * np.count_nonzero(spoken)
    for start_s, end_s in phrases:
        assert detected[round(start_s * 1000) : round(end_s * 1000)].mean() > 0.9
    false_alarms = "".join("x" if wrong else " " for wrong in detected & ~spoken).split()
    assert max(map(len, false_alarms), default=0) <= 300


@pytest.mark.parametrize("speaker", CHANNEL)
def test_our_detector_hears_the_listed_speech(
    times: dict[str, Any], pcm: np.ndarray, speaker: str
) -> None:
    channel = pcm[CHANNEL[speaker], None]
    [heard] = detect_speech(load_vad(), channel, sample_rate=RATE)
    check_heard(phrases_of(times, speaker), heard, times["duration_s"])
    assert len(heard) == len(phrases_of(times, speaker))


@pytest.mark.parity
@pytest.mark.parametrize("speaker", CHANNEL)
@pytest.mark.filterwarnings("ignore")  # of torch and silero_vad, not ours
def test_silero_hears_the_listed_speech(
    times: dict[str, Any], pcm: np.ndarray, speaker: str
) -> None:
    torch = pytest.importorskip("torch")
    silero_vad = pytest.importorskip("silero_vad")
    audio = resample(pcm[CHANNEL[speaker], None], RATE, 16_000)[0]
    found = silero_vad.get_speech_timestamps(
        torch.from_numpy(audio), silero_vad.load_silero_vad(), sampling_rate=16_000
    )
    heard = [(entry["start"] / 16_000, entry["end"] / 16_000) for entry in found]
    check_heard(phrases_of(times, speaker), heard, times["duration_s"])
    assert len(heard) == len(phrases_of(times, speaker))


# -- the script that made it -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("flite") is None, reason="needs the flite command")
def test_script_makes_this_conversation_every_time(times: dict[str, Any], pcm: np.ndarray) -> None:
    first_pcm, first_times = build()
    second_pcm, second_times = build()
    np.testing.assert_array_equal(first_pcm, second_pcm)
    assert first_times == second_times
    assert first_times == times
    np.testing.assert_allclose(first_pcm, pcm, atol=1.5 / 32768)
