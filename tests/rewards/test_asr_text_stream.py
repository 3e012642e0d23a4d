import pytest

from rewards.asr import text_stream_utterances

S = "\u2581"


def test_words_and_utterances():
    pieces = [None, S + "hel", "lo", None, S + "there", *[None] * 13, S + "yes", None]
    (first, hello), (second, yes) = text_stream_utterances(pieces, frame_s=0.08, start_s=-0.08)
    assert (hello, yes) == ("hello there", "yes")
    assert (first, second) == pytest.approx((0.0, 1.36))


def test_a_second_without_a_word_is_not_yet_a_boundary():
    pieces = [S + "a", *[None] * 12, S + "b"]
    assert text_stream_utterances(pieces, frame_s=0.08) == [(0.0, "a b")]
    assert text_stream_utterances([None, "", S], frame_s=0.08) == []
