"""Audio files: one-line errors, 16 bits that survive, resampling without delay or drift."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from mimi_jax.audio_file import read_audio, resample, write_audio

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")


def noise(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)


def tone(frequency_hz: float, rate: int, duration_s: float) -> np.ndarray:
    time_s = np.arange(round(duration_s * rate)) / rate
    return np.sin(2 * np.pi * frequency_hz * time_s)[None].astype(np.float32)


def wav_bytes(rate: int, data: bytes = bytes(200)) -> bytes:
    """A mono 16-bit WAV whose header claims any rate, also ones no writer would accept."""
    byte_rate = (2 * rate) % 2**32
    layout = struct.pack("<IHHIIHH", 16, 1, 1, rate, byte_rate, 2, 16)
    body = b"WAVEfmt " + layout + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def one_line(error: pytest.ExceptionInfo[BaseException], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in ("got", "expected", *parts):
        assert part in text


# -- reading ---------------------------------------------------------------------------------------


def test_reads_channels_first_and_keeps_them(tmp_path: Path) -> None:
    left_right = noise(2, 1000)
    soundfile.write(tmp_path / "a.wav", left_right.T, 24000, subtype="FLOAT")
    pcm = read_audio(tmp_path / "a.wav", sample_rate=24000)
    assert pcm.dtype == np.float32
    assert pcm.flags.c_contiguous
    np.testing.assert_array_equal(pcm, left_right)


def test_reads_mono_as_one_row(tmp_path: Path) -> None:
    mono = noise(1, 1000)
    soundfile.write(tmp_path / "a.wav", mono[0], 24000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", sample_rate=24000), mono)


def test_one_channel_is_the_mean_of_all(tmp_path: Path) -> None:
    left_right = noise(2, 1000)
    soundfile.write(tmp_path / "a.wav", left_right.T, 24000, subtype="FLOAT")
    pcm = read_audio(tmp_path / "a.wav", sample_rate=24000, channels=1)
    np.testing.assert_array_equal(pcm, left_right.mean(axis=0, keepdims=True))


def test_two_channels_pass_when_two_are_asked_for(tmp_path: Path) -> None:
    left_right = noise(2, 1000)
    soundfile.write(tmp_path / "a.wav", left_right.T, 24000, subtype="FLOAT")
    pcm = read_audio(tmp_path / "a.wav", sample_rate=24000, channels=2)
    np.testing.assert_array_equal(pcm, left_right)


def test_float_files_above_full_scale_are_not_clipped(tmp_path: Path) -> None:
    loud = 4 * noise(1, 1000)
    soundfile.write(tmp_path / "a.wav", loud.T, 24000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", sample_rate=24000), loud)


def test_reads_at_the_rate_asked_for(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440, 44100, 0.5).T, 44100, subtype="FLOAT")
    pcm = read_audio(tmp_path / "a.wav", sample_rate=24000)
    assert pcm.shape == (1, 12000)
    middle = slice(500, -500)
    np.testing.assert_allclose(pcm[:, middle], tone(440, 24000, 0.5)[:, middle], atol=1e-4)


@pytest.mark.parametrize("rate", [4000, 8000, 192000, 384000])
def test_unusual_but_possible_rates_are_read(tmp_path: Path, rate: int) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes(rate, bytes(2 * rate)))
    assert read_audio(tmp_path / "a.wav", sample_rate=24000).shape == (1, 24000)


# -- reading: errors -------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        read_audio(tmp_path / "absent.wav", sample_rate=24000)
    one_line(error, "absent.wav", "got no file", "check the path")


def test_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        read_audio(tmp_path, sample_rate=24000)
    one_line(error, "got no file")


@pytest.mark.parametrize("name", ["text.wav", "text.txt", "text.raw"])
@pytest.mark.parametrize("content", [b"", b"this is not audio " * 50])
def test_not_audio(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_audio(tmp_path / name, sample_rate=24000)
    one_line(error, name, "expected audio", "convert the file")


def test_cut_off_flac(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.flac", noise(1, 48000), 24000)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError) as error:
        read_audio(tmp_path / "a.flac", sample_rate=24000)
    one_line(error, "a.flac", "expected audio")


def test_empty_audio(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes(24000, b""))
    with pytest.raises(ValueError) as error:
        read_audio(tmp_path / "a.wav", sample_rate=24000)
    one_line(error, "a.wav", "got no samples")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(tmp_path: Path, bad: float) -> None:
    pcm = noise(2, 1000)
    pcm[1, 700] = bad
    pcm[1, 900] = bad
    soundfile.write(tmp_path / "a.wav", pcm.T, 24000, subtype="FLOAT")
    with pytest.raises(ValueError) as error:
        read_audio(tmp_path / "a.wav", sample_rate=24000)
    one_line(error, "a.wav", "got 2 NaN or infinite", "channel 1 sample 700", "repair")


@pytest.mark.parametrize(("present", "wanted"), [(1, 2), (4, 2), (2, 3)])
def test_wrong_number_of_channels(tmp_path: Path, present: int, wanted: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise(present, 100).T, 24000)
    with pytest.raises(ValueError) as error:
        read_audio(tmp_path / "a.wav", sample_rate=24000, channels=wanted)
    one_line(error, "a.wav", f"got {present} channel", f"expected {wanted}", "on each channel")


@pytest.mark.parametrize("rate", [1, 3999, 384001, 2**31 - 1])
def test_impossible_rate_in_the_header(tmp_path: Path, rate: int) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes(rate))
    with pytest.raises(ValueError) as error:
        read_audio(tmp_path / "a.wav", sample_rate=24000)
    one_line(error, "a.wav", f"got {rate} Hz", "expected 4000..384000 Hz", "fix the header")


def test_rate_zero_in_the_header(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes(0))
    with pytest.raises(ValueError) as error:
        read_audio(tmp_path / "a.wav", sample_rate=24000)
    one_line(error, "a.wav")


def test_impossible_rate_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes(24000))
    with pytest.raises(ValueError) as error:
        read_audio(tmp_path / "a.wav", sample_rate=24)
    one_line(error, "target sample rate", "got 24 Hz", "in Hz")


# -- writing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"), [("a.wav", "WAV"), ("a.flac", "FLAC"), ("A.FLAC", "FLAC")]
)
def test_sixteen_bits_come_back_bit_by_bit(tmp_path: Path, name: str, kind: str) -> None:
    steps = np.random.default_rng(0).integers(-32768, 32768, (2, 5000))
    steps[:, :2] = [[-32768, 32767], [32767, -32768]]
    pcm = (steps / 32768).astype(np.float32)
    write_audio(tmp_path / name, pcm, 24000)
    info = soundfile.info(tmp_path / name)
    assert (info.format, info.subtype, info.samplerate) == (kind, "PCM_16", 24000)
    np.testing.assert_array_equal(read_audio(tmp_path / name, sample_rate=24000), pcm)


def test_rounds_to_the_nearest_step_and_clips_at_full_scale(tmp_path: Path) -> None:
    pcm = np.array([0.6, -0.6, 40000, -40000, 1.4], np.float32) / 32768
    pcm = np.concatenate([pcm, np.array([1.0, 7.5, -1.0, -7.5], np.float32)])
    write_audio(tmp_path / "a.wav", pcm, 24000)
    written, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert written.tolist() == [1, -1, 32767, -32768, 1, 32767, 32767, -32768, -32768]


def test_one_row_needs_no_channel_axis(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", np.zeros(100, np.float32), 24000)
    assert read_audio(tmp_path / "a.wav", sample_rate=24000).shape == (1, 100)


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(tmp_path / "a.wav", noise(1, 100), 24000)
    before = (tmp_path / "a.wav").read_bytes()

    def disk_full(target: Path, *_: object, **__: object) -> None:
        target.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(soundfile, "write", disk_full)
    with pytest.raises(OSError, match="no space left"):
        write_audio(tmp_path / "a.wav", noise(1, 100, seed=1), 24000)
    assert (tmp_path / "a.wav").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.wav"]


# -- writing: errors -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp3", "a"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError) as error:
        write_audio(tmp_path / name, noise(1, 100), 24000)
    one_line(error, ".wav, .flac", "rename")


def test_samples_first_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        write_audio(tmp_path / "a.wav", noise(2, 24000).T, 24000)
    one_line(error, "shape [24000, 2]", "[C, S]", "transpose")


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_nothing_to_write(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as error:
        write_audio(tmp_path / "a.wav", np.zeros(shape, np.float32), 24000)
    one_line(error, "got no samples")


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        write_audio(tmp_path / "a.wav", np.array([0.0, np.nan], np.float32), 24000)
    one_line(error, "got 1 NaN or infinite", "channel 0 sample 1")
    assert not (tmp_path / "a.wav").exists()


def test_impossible_rate_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        write_audio(tmp_path / "a.wav", noise(1, 100), 24)
    one_line(error, "got 24 Hz", "4000..384000")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        write_audio(tmp_path / "nowhere" / "a.wav", noise(1, 100), 24000)
    one_line(error, "nowhere", "create it first")


# -- resampling ------------------------------------------------------------------------------------

RATES = [
    (16000, 24000),
    (24000, 16000),
    (44100, 24000),
    (48000, 24000),
    (8000, 24000),
    (24000, 44100),
    (22050, 16000),
]


@pytest.mark.parametrize(("source", "target"), RATES)
@pytest.mark.parametrize("samples", [11, 1000, 1001, 4999])
def test_length_is_exact(source: int, target: int, samples: int) -> None:
    pcm = resample(noise(2, samples), source, target)
    assert pcm.shape == (2, round(samples * target / source))
    assert pcm.dtype == np.float32
    assert pcm.flags.c_contiguous


@pytest.mark.parametrize(("source", "target"), RATES)
def test_tone_keeps_its_phase(source: int, target: int) -> None:
    frequency_hz = 1000.0
    pcm = resample(tone(frequency_hz, source, 1.0), source, target)[0].astype(np.float64)
    middle = slice(target // 10, -target // 10)  # a whole number of periods, away from the ends
    time_s = np.arange(target)[middle] / target
    phasor = np.mean(pcm[middle] * 2j * np.exp(-2j * np.pi * frequency_hz * time_s))
    assert abs(phasor) == pytest.approx(1.0, abs=1e-4)
    delay_s = -np.angle(phasor) / (2 * np.pi * frequency_hz)
    assert abs(delay_s) < 1e-9


def test_click_stays_where_it_was() -> None:
    pcm = np.zeros((1, 1600), np.float32)
    pcm[0, 800] = 1.0
    assert np.argmax(resample(pcm, 16000, 24000)[0]) == 1200


def test_tones_above_the_new_nyquist_frequency_vanish() -> None:
    pcm = resample(tone(11000, 24000, 1.0), 24000, 16000)
    assert np.abs(pcm[:, 500:-500]).max() < 1e-4


def test_channels_stay_apart() -> None:
    pcm = np.concatenate([tone(440, 24000, 0.2), np.zeros((1, 4800), np.float32)])
    result = resample(pcm, 24000, 16000)
    np.testing.assert_array_equal(result[0:1], resample(pcm[0:1], 24000, 16000))
    assert not result[1].any()


def test_equal_rates_change_nothing() -> None:
    pcm = noise(2, 777)
    np.testing.assert_array_equal(resample(pcm, 24000, 24000), pcm)


@pytest.mark.parametrize("samples", [0, 1])
def test_too_short_for_one_sample(samples: int) -> None:
    with pytest.raises(ValueError) as error:
        resample(noise(1, samples), 24000, 8000)
    one_line(error, f"got {samples} sample", "longer audio")


@pytest.mark.parametrize(("source", "target"), [(0, 24000), (24000, -1), (24000, 10**6)])
def test_impossible_rates(source: int, target: int) -> None:
    with pytest.raises(ValueError) as error:
        resample(noise(1, 100), source, target)
    one_line(error, "4000..384000 Hz")


# -- the optional packages -------------------------------------------------------------------------


def test_without_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    for call in (
        lambda: read_audio(tmp_path / "a.wav", sample_rate=24000),
        lambda: write_audio(tmp_path / "a.wav", noise(1, 10), 24000),
    ):
        with pytest.raises(ImportError) as error:
            call()
        one_line(error, "'soundfile'", "pip install 'moshi-jax[audio]'")


def test_without_soxr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(ImportError) as error:
        resample(noise(1, 100), 16000, 24000)
    one_line(error, "'soxr'", "pip install 'moshi-jax[audio]'")
