import io
import shutil
import tarfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from convert import ConversionError, load_voice, voice_names
from convert.voices import convert_voices


def archive(folder, *members):
    """Writes voices.tgz with `(name, data)` members, or ready TarInfos."""
    with tarfile.open(folder / "voices.tgz", "w:gz") as tar:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def recorded_member(folder):
    with tarfile.open(folder / "voices.tgz") as tar:
        return tar.extractfile("voices/TINY0.pt").read()


def test_a_voice_is_what_the_reference_recorded(personaplex_checkpoint, golden):
    folder, _ = personaplex_checkpoint
    expected = golden("checkpoint_personaplex_tiny_e2e").tensors
    assert voice_names(folder) == ["TINY0"]
    voice = load_voice(folder, "TINY0")
    assert voice.embeddings.dtype == ml_dtypes.bfloat16
    recorded = expected["inputs/voice_pt_embeddings_bf16"][:, 0, 0]
    assert voice.embeddings.tobytes() == recorded.tobytes()
    np.testing.assert_array_equal(voice.cache, expected["inputs/voice_pt_cache"][0])


def test_converted_once_it_is_the_same_without_a_pickle(personaplex_checkpoint, tmp_path):
    folder, _ = personaplex_checkpoint
    assert convert_voices(folder, tmp_path) == ["TINY0"]
    assert [path.name for path in tmp_path.rglob("*.*")] == ["TINY0.safetensors"]
    voice, expected = load_voice(tmp_path, "TINY0"), load_voice(folder, "TINY0")
    assert voice.embeddings.tobytes() == expected.embeddings.tobytes()
    np.testing.assert_array_equal(voice.cache, expected.cache)


def test_an_unpacked_archive_reads_the_same(personaplex_checkpoint, tmp_path):
    data = recorded_member(personaplex_checkpoint[0])
    (tmp_path / "voices").mkdir()
    (tmp_path / "voices" / "A.pt").write_bytes(data)
    expected = load_voice(personaplex_checkpoint[0], "TINY0")
    np.testing.assert_array_equal(load_voice(tmp_path, "A").cache, expected.cache)


def test_a_folder_without_voices_has_none(tiny_checkpoint, tmp_path):
    assert voice_names(tiny_checkpoint) == []
    assert convert_voices(tiny_checkpoint, tmp_path) == []
    with pytest.raises(ConversionError, match="no voice 'X', expected one of: none"):
        load_voice(tiny_checkpoint, "X")


@pytest.mark.parametrize("name", ["../TINY0.pt", "voices/../../x.pt", "/etc/x.pt"])
def test_a_member_that_leads_out_is_refused(name, tmp_path):
    archive(tmp_path, (name, b""))
    with pytest.raises(ConversionError, match=r"refused: .* leads out of its folder"):
        voice_names(tmp_path)


def test_links_are_refused(tmp_path):
    info = tarfile.TarInfo("voices/x.pt")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    archive(tmp_path, (info, b""))
    with pytest.raises(ConversionError, match="is a link or a device"):
        voice_names(tmp_path)


def test_two_files_for_a_voice_and_other_members(personaplex_checkpoint, tmp_path):
    data = recorded_member(personaplex_checkpoint[0])
    archive(tmp_path, ("voices/A.pt", data), ("voices/._A.pt", b"mac"), ("voices/README", b"r"))
    assert voice_names(tmp_path) == ["A"]
    archive(tmp_path, ("voices/A.pt", data), ("A.pt", data))
    with pytest.raises(ConversionError, match="two files for voice 'A'"):
        voice_names(tmp_path)


def test_a_broken_archive_is_named(personaplex_checkpoint, tmp_path):
    (tmp_path / "voices.tgz").write_bytes(b"no archive")
    with pytest.raises(ConversionError, match="not a tar archive"):
        voice_names(tmp_path)
    whole = (personaplex_checkpoint[0] / "voices.tgz").read_bytes()
    (tmp_path / "voices.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConversionError, match="cut short"):
        voice_names(tmp_path)


GOOD = {"embeddings": np.ones((4, 8), np.float32), "cache": np.ones((17, 4), np.int32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": np.ones(2)}, "expected the tensors embeddings and cache"),
        ({"embeddings": np.ones((4, 2, 1, 8), np.float32)}, "embeddings: got float32"),
        ({"embeddings": np.ones((4, 8), np.int32)}, "embeddings: got int32"),
        ({"embeddings": np.full((4, 8), np.nan, np.float32)}, "no numbers"),
        ({"cache": np.ones((17, 4), np.float32)}, "cache: got float32"),
        ({"cache": np.ones(17, np.int64)}, "cache: got int64"),
    ],
)
def test_what_is_no_voice_is_refused(change, message, tmp_path):
    (tmp_path / "voices").mkdir()
    save_file({**GOOD, **change}, tmp_path / "voices" / "A.safetensors")
    with pytest.raises(ConversionError, match=message):
        load_voice(tmp_path, "A")


def test_the_whole_folder_goes_there_and_back(personaplex_checkpoint, tmp_path):
    from convert import to_jax, to_torch

    folder, arch = personaplex_checkpoint
    to_jax(folder, tmp_path / "jax", arch=arch)
    assert voice_names(tmp_path / "jax") == ["TINY0"]
    shutil.rmtree(tmp_path / "jax" / "voices")
    to_torch(tmp_path / "jax", tmp_path / "back")
    names = sorted(path.name for path in folder.iterdir())
    back = {path.name for path in (tmp_path / "back").iterdir()}
    assert back == {"README.md", *names}
    for name in names:
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()
