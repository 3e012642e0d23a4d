from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from layers_jax.command import run_command
from mimi_jax import read_audio
from moshi_jax.nano.bank import read_bank
from moshi_jax.sample import conversation_path
from moshi_jax.stream import embedded_checkpoint, main

TINY = Path(__file__).resolve().parent.parent / "golden" / "checkpoint_moshi_tiny"
PLEX = TINY.with_name("checkpoint_personaplex_tiny")


@pytest.fixture(scope="module")
def speech():
    return read_audio(conversation_path(), sample_rate=24_000, channels=2)[:, : 24_000 * 2]


def write(path, pcm, rate):
    soundfile.write(path, soxr.resample(pcm.T, 24_000, rate), rate)
    return path


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (8_000, 1)])
def test_any_rate_and_channel_count_comes_out_at_24_khz_mono(
    tmp_path, capfd, speech, tiny_checkpoint, rate, channels
):
    source = write(tmp_path / "in.wav", speech[:channels], rate)
    target = tmp_path / "out.wav"
    options = ["--greedy", "--checkpoint", str(tiny_checkpoint)]
    assert main([str(source), str(target), *options]) == 0
    out = soundfile.info(target)
    assert (out.samplerate, out.channels) == (24_000, 1)
    assert abs(out.frames - 48_000) <= 1
    assert np.abs(soundfile.read(target)[0]).max() > 0.01
    text, report = capfd.readouterr()
    assert text.strip()
    assert "real-time factor" in report


def test_the_channel_decides_what_is_heard(tmp_path, capfd, speech, tiny_checkpoint):
    left = write(tmp_path / "left.wav", speech[:1], 24_000)
    both = write(tmp_path / "both.wav", speech, 24_000)

    def said(source, *options):
        shared = ["--greedy", "--checkpoint", str(tiny_checkpoint)]
        main([str(source), str(tmp_path / "out.wav"), *shared, *options])
        return capfd.readouterr().out, soundfile.read(tmp_path / "out.wav")[0]

    (text, audio), (text_left, audio_left) = said(both, "--channel", "0"), said(left)
    assert text == text_left
    np.testing.assert_array_equal(audio, audio_left)
    assert said(both)[0] != text  # the mean of both speakers is something else


def bad_inputs(tmp_path, speech):
    text = tmp_path / "text.wav"
    text.write_text("not audio")
    empty, silent = tmp_path / "empty.wav", tmp_path / "nan.wav"
    soundfile.write(empty, np.zeros(0, np.float32), 24_000)
    soundfile.write(silent, np.array([0, np.nan], np.float32), 24_000, subtype="FLOAT")
    good = write(tmp_path / "good.wav", speech[:1], 24_000)
    return {
        "missing": ([tmp_path / "nowhere.wav"], "nowhere.wav"),
        "not audio": ([text], "text.wav"),
        "empty": ([empty], "empty.wav"),
        "nan": ([silent], "nan.wav"),
        "channel": ([good, "--channel", "1"], "--channel is 1, expected 0 to 0"),
        "suffix": ([good], "out.txt: got suffix '.txt', expected one of .wav, .flac"),
        "folder": ([good, "--checkpoint", tmp_path], "checkpoint"),
        "role": ([good, "--role", "x", "--checkpoint", TINY], "for the start of a PersonaPlex"),
        "voice": ([good, "--voice", "x", "--checkpoint", TINY], "no voice 'x': got neither a file"),
        "resume": ([good, "--resume"], "--resume needs --state"),
        "condition": ([good, "--condition", "x", "--checkpoint", TINY], "is 'x', expected NAME=V"),
        "state": ([good, "--resume", "--state", text, "--checkpoint", TINY], "not a saved state"),
    }


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "not audio",
        "empty",
        "nan",
        "channel",
        "folder",
        "suffix",
        "role",
        "voice",
        "resume",
        "condition",
        "state",
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capfd, speech, kind):
    (source, *options), said = bad_inputs(tmp_path, speech)[kind]
    before = sorted(tmp_path.iterdir())
    target = "out.txt" if kind == "suffix" else "out.wav"
    argv = [str(source), str(tmp_path / target), *map(str, options)]
    assert run_command("moshi-jax stream", main, argv) == 1
    text, error = capfd.readouterr()
    assert not text, "it must be said before the work, not after"
    assert error.count("\n") == 1 and error.startswith("moshi-jax stream: ")
    assert said in error
    assert sorted(tmp_path.iterdir()) == before


def test_the_embedded_checkpoint_answers_and_keeps_silent(tmp_path, capfd):
    (asked, *_) = read_bank().variants("user", "hello", "fall")
    pcm = np.zeros((1, 24_000 * 6), np.float32)
    pcm[0, : asked.pcm.size] = asked.pcm
    source = write(tmp_path / "in.wav", pcm, 24_000)
    assert main([str(source), str(tmp_path / "out.wav"), "--seed", "3"]) == 0
    assert embedded_checkpoint().name == "nano"
    loud = np.abs(soundfile.read(tmp_path / "out.wav")[0]).reshape(-1, 1920).max(axis=1)
    assert loud.max() > 0.01 > 0.002 > loud.min()


def test_nothing_to_do_is_bad_usage(tmp_path, capfd):
    assert main([str(tmp_path / "only.wav")]) == 2
    assert "expected IN... OUT" in capfd.readouterr().err


def test_a_batch_of_recordings_is_each_as_it_would_be_alone(tmp_path, speech):
    """PersonaPlex, drawing; and a run that was left off in the middle goes on where it was."""
    sources = [
        write(tmp_path / f"{name}.wav", speech[:1, start:stop], 24_000)
        for name, start, stop in (("a", 0, 20_000), ("b", 9_000, 23_111))
    ]
    shared = ["--checkpoint", str(PLEX), "--arch", f"{PLEX}.arch.json", "--role", "a hat"]
    both = tmp_path / "both"
    main([*map(str, sources), str(both), *shared])
    alone = tmp_path / "alone.wav"
    main([str(sources[1]), str(alone), *shared, "--two-channel"])
    together, single = soundfile.read(both / "b.wav")[0], soundfile.read(alone)[0]
    assert len(soundfile.read(both / "a.wav")[0]) == 20_000 and len(together) == 14_111
    np.testing.assert_allclose(single[:, 0], together, atol=2**-14)
    np.testing.assert_allclose(single[:, 1], speech[0, 9_000:23_111], atol=2**-14)
    assert np.abs(together).max() > 0.01


def test_a_run_that_was_left_off_goes_on_as_if_it_had_not_been(tmp_path, speech):
    source = str(write(tmp_path / "in.wav", speech[:1, :24_000], 24_000))
    shared = ["--checkpoint", str(PLEX), "--arch", f"{PLEX}.arch.json", "--voice", "TINY0"]
    state = ["--state", str(tmp_path / "state")]
    parts = []
    for name, options in (
        ("whole", ["--role", "a hat"]),
        ("first", ["--role", "a hat", "--until-s", "0.4", *state]),
        ("rest", ["--resume", *state]),
    ):
        target = tmp_path / f"{name}.wav"
        given = shared if name != "rest" else shared[:-2]
        assert main([source, str(target), *given, *options]) == 0
        parts.append(soundfile.read(target)[0])
    whole, first, rest = parts
    assert len(first) == 5 * 1920 and len(whole) == 24_000
    np.testing.assert_allclose(np.concatenate([first, rest]), whole, atol=2**-14)
