"""CANDOR, in miniature."""

import json

import pytest

from grpo.corpora import Word
from grpo.corpora.candor import list_candor, read_channel_map

COLUMNS = "turn_id,speaker,start,stop,utterance,interval\n"


@pytest.fixture
def corpus(tmp_path, write):
    for name in ("aaa", "bbb", "ccc", "ddd"):
        write(tmp_path / name / "processed" / f"{name}.mp3")
        (tmp_path / name / "transcription").mkdir()
    users = [{"user_id": "kim", "channel": "R"}, {"user_id": "lee", "channel": "L"}]
    (tmp_path / "aaa" / "metadata.json").write_text(json.dumps({"speakers": users}))
    table = COLUMNS + '0,kim,0.1,0.4,"hi, there",\n1,lee,0.5,0.9,hello,0.1\n'
    (tmp_path / "aaa" / "transcription" / "transcript_audiophile.csv").write_text(table)
    (tmp_path / "bbb" / "transcription" / "channel_map.json").write_text('{"L": "x", "R": "y"}')
    (tmp_path / "ccc" / "metadata.json").write_text('{"speakers": [{"user_id": "x"}]}')
    (tmp_path / "eee" / "processed").mkdir(parents=True)
    return tmp_path


def test_conversations_with_their_channel_map(corpus, levels):
    listing = list_candor(corpus)
    assert {r.name: r.speakers for r in listing.recordings} == {
        "aaa": ("lee", "kim"),
        "bbb": ("x", "y"),
    }
    assert [bad.name for bad in listing.bad] == ["ccc", "ddd", "eee"]
    assert "expected a user for L and for R" in listing.bad[0].reason
    assert "neither metadata.json nor" in listing.bad[1].reason
    assert levels(listing.recordings[0]) == pytest.approx([0.2, 0.05], rel=0.15)


def test_turns_go_to_the_channel_of_their_speaker(corpus):
    aaa, bbb = list_candor(corpus).recordings
    assert aaa.transcript() == ([Word("hello", 0.5, 0.9)], [Word("hi, there", 0.1, 0.4)])
    assert bbb.transcript is None


@pytest.mark.parametrize("rows", ["0,sam,0,1,x,\n", "0,kim,a,1,x,\n", "0,kim,2,1,x,\n"])
def test_a_turn_that_cannot_be(corpus, rows):
    path = corpus / "aaa" / "transcription" / "transcript_audiophile.csv"
    path.write_text(COLUMNS + rows)
    with pytest.raises(ValueError, match="expected"):
        list_candor(corpus).recordings[0].transcript()


def test_broken_maps(corpus):
    for text in ("{", "[]", '{"speakers": 3}'):
        (corpus / "ccc" / "metadata.json").write_text(text)
        with pytest.raises(ValueError, match="expected a user for L and for R"):
            read_channel_map(corpus / "ccc")


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="got no folder with processed/<id>"):
        list_candor(tmp_path)
