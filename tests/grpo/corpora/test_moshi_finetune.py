"""The layout of moshi-finetune, in miniature."""

import json

import pytest

from grpo.corpora import Word
from grpo.corpora.moshi_finetune import list_moshi_finetune


@pytest.fixture
def corpus(tmp_path, write):
    for name in ("one", "two"):
        write(tmp_path / "data_stereo" / f"{name}.wav")
    alignments = [
        ["hello", [0.1, 0.4], "SPEAKER_MAIN"],
        ["there", [0.4, 0.7], "SPEAKER_MAIN"],
        ["hi", [0.8, 0.9], "SPEAKER_01"],
    ]
    (tmp_path / "data_stereo" / "one.json").write_text(json.dumps({"alignments": alignments}))
    lines = [
        '{"path": "data_stereo/one.wav", "duration": 1.0}',
        "",
        '{"path": "data_stereo/two.wav", "duration": 1.0',
        '{"duration": 1.0}',
        '{"path": "data_stereo/two.wav", "duration": 1.0}',
        '{"path": "data_stereo/one.wav", "duration": 1.0}',
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.parametrize("source", ["", "data.jsonl"])
def test_recordings_by_line(corpus, levels, source):
    listing = list_moshi_finetune(corpus / source)
    assert [r.name for r in listing.recordings] == ["data_stereo/one.wav", "data_stereo/two.wav"]
    assert [bad.name for bad in listing.bad] == ["data.jsonl:3", "data.jsonl:4"]
    assert "expected an object with a path" in listing.bad[0].reason
    one, two = listing.recordings
    assert levels(one) == pytest.approx([0.2, 0.05], rel=0.1)
    assert two.transcript is None


def test_tables_in_several_folders_do_not_mix_names(tmp_path, write):
    for folder in ("x", "y"):
        write(tmp_path / folder / "a.wav")
        (tmp_path / folder / "data.jsonl").write_text('{"path": "a.wav", "duration": 1.0}')
    assert [r.name for r in list_moshi_finetune(tmp_path).recordings] == ["x/a.wav", "y/a.wav"]


def test_words_of_the_main_speaker_are_left(corpus):
    one = list_moshi_finetune(corpus).recordings[0]
    left, right = one.transcript()
    assert left == [Word("hello", 0.1, 0.4), Word("there", 0.4, 0.7)]
    assert right == [Word("hi", 0.8, 0.9)]


@pytest.mark.parametrize(
    "text",
    ["{", "{}", '{"alignments": [["a"]]}', '{"alignments": [["a", [2, 1], "SPEAKER_MAIN"]]}'],
)
def test_broken_alignments(corpus, text):
    (corpus / "data_stereo" / "one.json").write_text(text)
    one = list_moshi_finetune(corpus).recordings[0]
    with pytest.raises(ValueError, match="expected"):
        one.transcript()


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got no \.jsonl there"):
        list_moshi_finetune(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"got no \.jsonl there"):
        list_moshi_finetune(tmp_path / "gone.jsonl")
