"""The discs of Fisher English, in miniature."""

import pytest

from grpo.corpora import Word
from grpo.corpora.fisher import list_fisher

TRANSCRIPT = """\
# fe_03_00001.sph
# Transcribed at the LDC

3.76 5.54 A: and i generally prefer

5.10 5.38 B: (( right ))
7.00 8.25 A: eating at home
"""
TABLE = (
    "CALL_ID,DATE,TIME,TOPICID,SIG_GRADE,APIN,ASX,ACH,AIL,ARP,BPIN,BSX\n"
    "00001,20021231,22:07,ENG01,1.5,2602,f.a,20,1,2,1790,m.a\n"
    "11487,20030101,22:07,ENG01,1.5,77,f.a,20,1,2,78,m.a\n"
)


@pytest.fixture
def discs(tmp_path, write):
    for call in ("00001", "00002"):
        audio = tmp_path / "LDC2004S13" / "fisher_eng_tr_sp_d1" / "audio" / "000"
        write(audio / f"fe_03_{call}.sph", format="NIST", subtype="ULAW")
    write(tmp_path / "LDC2004S13" / "converted" / "fe_03_11487.wav")
    trans = tmp_path / "LDC2004T19" / "data" / "trans"
    for folder, call, text in (
        ("000", "00001", TRANSCRIPT),
        ("114", "11487", "# x\n31.09 234.06 A: oh\n232.00 235.00 B: yes\n"),
        ("000", "00009", TRANSCRIPT),
    ):
        (trans / folder).mkdir(parents=True, exist_ok=True)
        (trans / folder / f"fe_03_{call}.txt").write_text(text)
    (tmp_path / "LDC2004T19" / "doc").mkdir()
    (tmp_path / "LDC2004T19" / "doc" / "fe_03_p1_calldata.tbl").write_text(TABLE)
    return tmp_path


def test_calls_with_their_speakers(discs, levels):
    listing = list_fisher(discs)
    assert {r.name: r.speakers for r in listing.recordings} == {
        "fe_03_00001": ("2602", "1790"),
        "fe_03_00002": (None, None),
        "fe_03_11487": ("77", "78"),
    }
    assert [bad.name for bad in listing.bad] == ["fe_03_00009"]
    assert "a transcript only" in listing.bad[0].reason
    for recording in listing.recordings:
        assert levels(recording) == pytest.approx([0.2, 0.05], rel=0.1)  # A is channel 0


def test_what_both_sides_say(discs):
    first, second, third = list_fisher(discs).recordings
    side_a, side_b = first.transcript()
    assert side_a == [
        Word("and i generally prefer", 3.76, 5.54),
        Word("eating at home", 7.0, 8.25),
    ]
    assert side_b == [Word("(( right ))", 5.1, 5.38)]
    assert second.transcript is None
    assert third.transcript()[0] == [Word("oh", 231.09, 234.06)]  # the misprint of the release


@pytest.mark.parametrize("line", ["no times A: x", "1.0 2.0 C: x", "3.0 2.0 A: x", "1.0 A: x"])
def test_a_line_that_is_no_utterance(discs, line):
    path = discs / "LDC2004T19" / "data" / "trans" / "000" / "fe_03_00001.txt"
    path.write_text(TRANSCRIPT + line)
    with pytest.raises(ValueError, match="expected"):
        list_fisher(discs).recordings[0].transcript()


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="got no fe_03_NNNNN with audio"):
        list_fisher(tmp_path)
