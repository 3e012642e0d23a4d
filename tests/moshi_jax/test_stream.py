from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr

from helium_jax import DuplexSession
from layers_jax.command import run_command
from mimi_jax import read_audio
from moshi_jax.sample import conversation_path
from moshi_jax.stream import converse, embedded_checkpoint, main

SIZE = 1920


class Echo(DuplexSession):
    """A session whose agent repeats the user with no delay of its own, on the model's clock."""

    frame_samples = SIZE
    delay_frames = None

    def __init__(self, delay):
        self.delay_frames = delay
        self.heard = []

    def step(self, pcm, exec_mask=None):
        call = len(self.heard)
        self.heard.append(np.array(pcm[0]))
        frame = call - self.delay_frames  # the training frame that comes out of this call ...
        said = self.heard[frame + 1] if frame >= 0 else np.full(SIZE, np.nan)  # ... and went in
        return SimpleNamespace(pcm=said[None])


@pytest.mark.parametrize("delay", [1, 2])
@pytest.mark.parametrize("length", [1, SIZE, 3 * SIZE, 3 * SIZE + 700])
def test_an_echo_comes_back_where_it_was_said(delay, length):
    pcm = np.random.default_rng(0).normal(size=length).astype(np.float32)
    session = Echo(delay)
    said = np.concatenate([frame.pcm[0] for frame in converse(session, pcm)])
    assert len(said) == -(-length // SIZE) * SIZE
    np.testing.assert_array_equal(said[:length], pcm)
    assert not said[length:].any()
    assert not session.heard[0].any(), "nothing is heard at call 0, so nothing may be said there"


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
    }


@pytest.mark.parametrize(
    "kind", ["missing", "not audio", "empty", "nan", "channel", "folder", "suffix"]
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


def test_the_embedded_checkpoint_speaks_up_and_keeps_silent(tmp_path, capfd, speech):
    source = write(tmp_path / "in.wav", speech[1:], 24_000)
    assert main([str(source), str(tmp_path / "out.wav"), "--seed", "3"]) == 0
    assert embedded_checkpoint().name == "tiny"
    loud = np.abs(soundfile.read(tmp_path / "out.wav")[0]).reshape(-1, 1920).max(axis=1)
    assert loud.max() > 0.01 > 0.002 > loud.min()
