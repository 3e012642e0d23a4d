"""Audio of every kind, whole and in parts."""

import io
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from grpo.corpora import AudioRef, open_pcm

soundfile = pytest.importorskip("soundfile")

RATE = 8_000


@pytest.fixture(scope="module")
def pcm():
    """Three seconds of two tones that grow, so that every moment is another, [S, 2]."""
    time_s = np.arange(3 * RATE) / RATE
    tones = np.stack([np.sin(2 * np.pi * f * time_s) for f in (300, 700)], axis=1)
    return tones * np.linspace(0.1, 0.5, len(tones))[:, None]


def read(path, start=0, count=10**9, **place):
    with open_pcm(AudioRef(path, **place)) as audio:
        assert (audio.sample_rate, audio.channels) == (RATE, 2)
        return audio.read(start, count)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_part_is_what_the_whole_has_there(tmp_path, pcm, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, pcm, RATE)
    whole = read(path)
    assert whole.shape == (2, len(pcm))
    np.testing.assert_allclose(whole.T, pcm, atol=1e-4 if suffix in ("wav", "flac") else 0.08)
    for start, count in ((0, 100), (12_345, 1000), (5, 20_000), (23_500, 1000)):
        part = read(path, start, count)
        np.testing.assert_array_equal(part, whole[:, start : start + count])
    with open_pcm(AudioRef(path)) as audio:  # back and forth
        for start in (20_000, 3_000, 9_000, 0):
            np.testing.assert_array_equal(
                audio.read(start, 500), whole[:, start : start + 500], err_msg=str(start)
            )


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_reads_that_follow_each_other(tmp_path, pcm, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, pcm, RATE)
    with open_pcm(AudioRef(path)) as audio:
        parts = [audio.read(start, 7000) for start in range(0, audio.num_samples, 7000)]
        assert audio.read(audio.num_samples, 10).shape == (2, 0)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), read(path))


def test_a_member_of_a_tar_is_read_where_it_lies(tmp_path, pcm):
    data = io.BytesIO()
    soundfile.write(data, pcm, RATE, format="WAV")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("video.mp4", bytes(5000)), ("a.wav", data.getvalue()), ("b", b"x")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with tarfile.open(tmp_path / "a.tar") as tar:
        member = tar.getmember("a.wav")
        place = {"offset": member.offset_data, "size": member.size}
    np.testing.assert_allclose(read(tmp_path / "a.tar", **place).T, pcm, atol=1e-4)
    part = read(tmp_path / "a.tar", 9000, 500, **place)
    np.testing.assert_allclose(part.T, pcm[9000:9500], atol=1e-4)
    ref = AudioRef(tmp_path / "a.tar", **place)
    assert ref.read_bytes() == data.getvalue()
    assert str(ref).endswith(f"a.tar at byte {member.offset_data}")


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "PCM_16"])
def test_plain_sphere(tmp_path, pcm, subtype):
    path = tmp_path / "a.sph"
    soundfile.write(path, pcm, RATE, format="NIST", subtype=subtype)
    assert path.read_bytes().startswith(b"NIST_1A")
    np.testing.assert_allclose(read(path).T, pcm, atol=0.02)


@pytest.fixture
def compressed(tmp_path, pcm):
    """The header of Fisher's files, before samples that are not really shorten."""
    header = (
        "NIST_1A\n   1024\nchannel_count -i 2\nsample_count -i 24000\nsample_rate -i 8000\n"
        "sample_n_bytes -i 1\nsample_coding -s27 ulaw,embedded-shorten-v2.00\nend_head\n"
    )
    path = tmp_path / "fe_03_00001.sph"
    path.write_bytes(header.encode().ljust(1024) + b"ajkg\x02" + bytes(100))
    return path


def fake_sph2pipe(folder, monkeypatch, body):
    program = folder / "bin" / "sph2pipe"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{body}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))


def test_compressed_sphere_goes_through_sph2pipe(tmp_path, pcm, compressed, monkeypatch):
    soundfile.write(tmp_path / "decoded.wav", pcm, RATE)
    body = f"""import sys
assert sys.argv[1:] == ["-p", "-f", "wav", {str(compressed)!r}]
sys.stdout.buffer.write(open({str(tmp_path / "decoded.wav")!r}, "rb").read())
"""
    fake_sph2pipe(tmp_path, monkeypatch, body)
    np.testing.assert_allclose(read(compressed).T, pcm, atol=1e-4)
    np.testing.assert_allclose(read(compressed, 100, 50).T, pcm[100:150], atol=1e-4)


def test_what_sph2pipe_says_is_passed_on(tmp_path, compressed, monkeypatch):
    fake_sph2pipe(tmp_path, monkeypatch, "raise SystemExit('bad shorten block')")
    with pytest.raises(ValueError, match="got 'bad shorten block' from sph2pipe"):
        read(compressed)


def test_compressed_sphere_without_sph2pipe_says_what_to_do(compressed, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="put sph2pipe on PATH"):
        read(compressed)


def test_what_libsndfile_does_not_know_goes_through_pyav(tmp_path, pcm):
    av = pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(pcm.T, np.float32), format="fltp", layout="stereo"
        )
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    found = read(path)
    best = max(  # AAC delays by a block or two
        np.corrcoef(found[0, lag : lag + 16_000], pcm[:16_000, 0])[0, 1] for lag in range(0, 4096)
    )
    assert best > 0.95


def test_what_nobody_knows(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF, but nothing else")
    with pytest.raises(ValueError, match=r"cannot read .*a\.wav: got 'Format not recognised'"):
        read(path)
    with pytest.raises(FileNotFoundError, match="got no file there"):
        read(tmp_path / "gone.wav")


def test_a_file_that_breaks_off(tmp_path, pcm):
    """The header promises three seconds; a copy that was cut has one."""
    soundfile.write(tmp_path / "whole.flac", pcm, RATE)
    data = (tmp_path / "whole.flac").read_bytes()
    path = Path(shutil.copy(tmp_path / "whole.flac", tmp_path / "half.flac"))
    path.write_bytes(data[: len(data) // 3])
    try:
        found = read(path).shape[1]
    except ValueError as error:
        assert "repair or remove" in str(error)
    else:
        assert found < len(pcm)
