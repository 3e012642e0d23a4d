"""Seamless Interaction, in miniature: tars of participants, and unpacked files."""

import json
import tarfile

import pytest

from grpo.corpora import Word
from grpo.corpora.seamless import list_seamless


def annotation(*words):
    return json.dumps(
        {
            "id": "x",
            "metadata:vad": [{"start": 0.0, "end": 1.0}],
            "metadata:transcript": [
                {"start": 0.0, "end": 1.0, "transcript": "", "words": list(words)},
                {"start": 1.0, "end": 2.0, "transcript": "(laughs)"},
            ],
        }
    )


HELLO = annotation(
    {"word": "hello", "start": 0.1, "end": 0.4, "score": 0.9},
    {"word": "42", "score": 0.1},  # not aligned
)


@pytest.fixture
def corpus(tmp_path, write):
    """One interaction in a tar, one beside it, one with a single participant, a broken tar."""
    files = tmp_path / "files"
    for channel, participant in enumerate(("P0001", "P0002A")):
        stem = files / f"V00_S0001_I00000001_{participant}"
        write(stem.with_suffix(".wav"), channel)
        stem.with_suffix(".json").write_text(HELLO if channel == 0 else annotation())
        stem.with_suffix(".npz").write_bytes(bytes(3000))
    source = tmp_path / "seamless"
    folder = source / "improvised" / "train" / "0000"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "0000.tar", "w") as tar:
        for path in sorted(files.iterdir()):
            tar.add(path, arcname=path.name)
    (folder / "0001.tar").write_bytes(b"not a tar" * 100)
    for channel, participant in enumerate(("P0003", "P0004")):
        write(source / "loose" / f"V01_S0002_I00000002_{participant}.wav", channel)
    write(source / "loose" / "V01_S0002_I00000003_P0003.wav", 0)
    return source


def test_participants_are_paired(corpus, levels):
    listing = list_seamless(corpus)
    assert {r.name: r.speakers for r in listing.recordings} == {
        "V00_S0001_I00000001": ("0001", "0002A"),
        "V01_S0002_I00000002": ("0003", "0004"),
    }
    assert [bad.name for bad in listing.bad] == ["0001.tar", "V01_S0002_I00000003"]
    assert "got audio of 1 participant(s), expected 2" in listing.bad[1].reason
    for recording in listing.recordings:
        assert recording.two_files
        assert levels(recording) == pytest.approx([0.2, 0.05], rel=0.1)


def test_words_out_of_the_tar(corpus):
    packed, loose = list_seamless(corpus).recordings
    assert packed.transcript() == ([Word("hello", 0.1, 0.4)], [])
    assert loose.transcript is None


def test_a_single_tar(corpus):
    tar = corpus / "improvised" / "train" / "0000" / "0000.tar"
    assert [r.name for r in list_seamless(tar).recordings] == ["V00_S0001_I00000001"]


@pytest.mark.parametrize("text", ["{", "[]", annotation({"start": 0.1, "end": 0.2})])
def test_broken_json(corpus, text):
    for participant in ("P0003", "P0004"):
        (corpus / "loose" / f"V01_S0002_I00000002_{participant}.json").write_text(text)
    loose = list_seamless(corpus).recordings[1]
    with pytest.raises(ValueError, match="expected metadata:transcript with words"):
        loose.transcript()


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got no V\*_S\*_I\*_P\*\.wav"):
        list_seamless(tmp_path)
