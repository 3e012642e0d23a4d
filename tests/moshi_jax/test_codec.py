import dataclasses
import json

import numpy as np
import pytest
import soundfile

import mimi_jax
from convert import load_mimi
from moshi_jax.codec import main
from moshi_jax.codec.audio import read_pieces
from moshi_jax.codec.code_file import CodeHeader, read_codes, read_header, write_codes
from moshi_jax.codec.quality import log_spectral_distance_db, snr_db
from moshi_jax.codec.work import Job, find_jobs, groups
from moshi_jax.stream import embedded_checkpoint

HEADER = CodeHeader(24_000, 12.5, 64, 2, 5_000)


def noise(seconds, rate=24_000, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal((int(seconds * rate), channels))).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two channels at the codec's rate, one at another in a subfolder, and what is no audio."""
    root = tmp_path_factory.mktemp("codec")
    (root / "in" / "sub").mkdir(parents=True)
    soundfile.write(root / "in" / "two.wav", noise(0.5, channels=2), 24_000)
    soundfile.write(root / "in" / "sub" / "one.flac", noise(0.3, rate=44_100), 44_100)
    (root / "in" / "broken.wav").write_text("hello")
    return root


@pytest.fixture(scope="module")
def encoded(folder):
    """The folder encoded; the exit code."""
    return main(["encode", str(folder / "in"), str(folder / "codes"), "--batch", "2"])


@pytest.fixture(scope="module")
def decoded(folder, encoded):
    return main(["decode", str(folder / "codes"), str(folder / "out"), "--batch", "2"])


def test_a_folder_is_encoded_but_for_what_is_no_audio(folder, encoded):
    assert encoded == 1
    made = {p.relative_to(folder / "codes").as_posix() for p in folder.glob("codes/**/*.*")}
    assert made == {"two.safetensors", "sub/one.safetensors"}
    codes, header = read_codes(folder / "codes" / "two.safetensors")
    assert codes.shape == (2, 4, 7) and header.num_samples == 12_000
    codes, header = read_codes(folder / "codes" / "sub" / "one.safetensors")
    assert codes.shape == (1, 4, 4) and header.num_samples == 7_200


def test_the_codes_are_those_of_each_channel_alone(folder, encoded):
    mimi, params = load_mimi(embedded_checkpoint())
    pcm = mimi_jax.read_audio(folder / "in" / "two.wav", sample_rate=24_000)
    codec = mimi_jax.BlockCodec(mimi, params, batch=2)
    (alone,) = [block for (block,) in codec.encode([[pcm[1]]])]
    codes, _ = read_codes(folder / "codes" / "two.safetensors")
    np.testing.assert_array_equal(codes[1], alone)
    assert np.any(codes[0] != codes[1])


def test_a_second_run_makes_nothing_and_another_setting_is_refused(folder, encoded, capsys):
    before = {p: p.stat().st_mtime_ns for p in folder.glob("codes/**/*.safetensors")}
    arguments = ["encode", str(folder / "in"), str(folder / "codes"), "--batch", "2"]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == "0 made, 2 there already, 1 failed\n"
    assert "failed: " in captured.err and "broken.wav" in captured.err
    assert {p: p.stat().st_mtime_ns for p in folder.glob("codes/**/*.safetensors")} == before
    assert main([*arguments, "--codebooks", "2"]) == 1
    assert "holds codes of other audio or settings" in capsys.readouterr().err


def test_a_folder_is_decoded_to_audio_of_the_original_length(folder, decoded):
    assert decoded == 0
    two, rate = soundfile.read(folder / "out" / "two.flac", always_2d=True)
    one, _ = soundfile.read(folder / "out" / "sub" / "one.flac", always_2d=True)
    assert (two.shape, one.shape, rate) == ((12_000, 2), (7_200, 1), 24_000)
    mimi, params = load_mimi(embedded_checkpoint())
    codes, _ = read_codes(folder / "codes" / "two.safetensors")
    codec = mimi_jax.BlockCodec(mimi, params, batch=2)
    (alone,) = [block for (block,) in codec.decode([[codes[0]]])]
    np.testing.assert_allclose(two[:, 0], np.clip(alone[:12_000], -1, 1), atol=1 / 32768)
    assert np.std(two) > 1e-3


def test_a_single_file_that_cannot_be_used_is_one_error(folder):
    with pytest.raises(ValueError, match=r"cannot read .*broken\.wav"):
        main(["encode", str(folder / "in" / "broken.wav"), str(folder / "x.npz")])
    with pytest.raises(ValueError, match=r"--channel is 2, expected 0 to 1: .*two\.wav has 2"):
        two = folder / "in" / "two.wav"
        main(["encode", str(two), str(folder / "x.npz"), "--channel", "2"])
    assert not (folder / "x.npz").exists()


def test_a_roundtrip_says_how_far_it_is(folder, capsys):
    source, target = folder / "in" / "sub" / "one.flac", folder / "heard.wav"
    assert main(["roundtrip", str(source), str(target), "--codebooks", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "one.flac, channel 0: 0.30 s, 4 frames"
    assert lines[1].startswith("  4 codebooks, 0.40 kbit/s: SNR ")
    assert "log spectral distance " in lines[1]
    assert len(soundfile.read(target)[0]) == 7_200


@pytest.mark.parametrize("rate", [24_000, 16_000, 44_100])
def test_pieces_are_the_whole_file(tmp_path, rate, monkeypatch):
    monkeypatch.setattr("moshi_jax.codec.audio.PIECE_S", 0.11)
    soundfile.write(tmp_path / "a.wav", noise(0.613, rate=rate, channels=2), rate)
    whole = mimi_jax.read_audio(tmp_path / "a.wav", sample_rate=24_000)[1]
    pieces = list(read_pieces(tmp_path / "a.wav", 1, 24_000))
    assert len(pieces) > 3
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_codes_come_back_from_disk(tmp_path, suffix):
    codes = np.random.default_rng(0).integers(0, 64, (3, 4, 2)).astype(np.int32).swapaxes(1, 2)
    path = tmp_path / f"a{suffix}"
    write_codes(path, codes, HEADER)
    back, header = read_codes(path)
    np.testing.assert_array_equal(back, codes)
    assert header == HEADER == read_header(path) and back.dtype == np.int32
    wrong = dataclasses.replace(HEADER, num_codebooks=5)
    write_codes(path, codes, wrong)
    with pytest.raises(
        ValueError, match=r"has codes \[3, 2, 4\], expected \[channels, 5, frames\]"
    ):
        read_codes(path)
    path.write_text(json.dumps({}))
    with pytest.raises(ValueError, match="is not a file of codes"):
        read_codes(path)
    with pytest.raises(FileNotFoundError, match="got no file there, expected codes"):
        read_codes(tmp_path / f"none{suffix}")


def test_jobs_mirror_the_folder_and_say_what_cannot_be(tmp_path):
    kinds = {"sources": {".wav", ".flac"}, "targets": {".npz"}, "suffix": ".npz"}
    (tmp_path / "in" / "b").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"has none of \.flac, \.wav"):
        find_jobs(tmp_path / "in", tmp_path / "out", **kinds)
    for name in ("a.wav", "b/c.FLAC", "b/notes.txt"):
        (tmp_path / "in" / name).write_text("")
    jobs = find_jobs(tmp_path / "in", tmp_path / "out", **kinds)
    targets = [job.target.relative_to(tmp_path).as_posix() for job in jobs]
    assert targets == ["out/a.npz", "out/b/c.npz"]
    (tmp_path / "in" / "a.flac").write_text("")
    with pytest.raises(ValueError, match="differ in their suffix only"):
        find_jobs(tmp_path / "in", tmp_path / "out", **kinds)
    with pytest.raises(ValueError, match=r"got suffix '\.txt', expected one of \.npz"):
        find_jobs(tmp_path / "in" / "a.wav", tmp_path / "x.txt", **kinds)
    with pytest.raises(FileNotFoundError, match="is not there, expected a file or a folder"):
        find_jobs(tmp_path / "none", tmp_path / "x.npz", **kinds)


def test_groups_fill_the_batch_and_never_split_a_file(tmp_path):
    jobs = [Job(tmp_path / str(rows), tmp_path / "x") for rows in (2, 1, 1, 3, 2)]
    made = groups(jobs, lambda job: int(job.source.name), 4)
    assert [[job.source.name for job in group] for group in made] == [["2", "1", "1"], ["3"], ["2"]]
    with pytest.raises(ValueError, match="has 3 channels, expected at most 2; raise --batch"):
        list(groups(jobs, lambda job: int(job.source.name), 2))


def test_distances_of_known_differences():
    audio = noise(1.0)[:, 0]
    assert snr_db(audio, audio) == float("inf")
    assert snr_db(audio, 0.9 * audio) == pytest.approx(20, abs=0.01)
    assert log_spectral_distance_db(audio, audio) == 0
    assert log_spectral_distance_db(audio, audio / 2) == pytest.approx(20 * np.log10(2), abs=0.05)
    assert log_spectral_distance_db(audio[:10], audio[:10]) == 0
