"""A folder of stereo files."""

import pytest

from grpo.corpora.stereo import list_stereo


def test_audio_files_of_the_folder_by_name(tmp_path, write, levels):
    for name in ("b.wav", "deep/a.FLAC", "c.ogg", "d.mp3"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no audio")
    listing = list_stereo(tmp_path)
    assert [r.name for r in listing.recordings] == ["b.wav", "c.ogg", "d.mp3", "deep/a.FLAC"]
    assert listing.bad == []
    for recording in listing.recordings:
        assert levels(recording) == pytest.approx([0.2, 0.05], rel=0.15)
        assert recording.speakers == (None, None)


def test_a_single_file(tmp_path, write):
    (recording,) = list_stereo(write(tmp_path / "a.wav")).recordings
    assert recording.name == "a.wav"


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="got nothing there, expected an audio file or"):
        list_stereo(tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"got no audio file, expected some of \.wav, \.flac"
    ):
        list_stereo(tmp_path)
