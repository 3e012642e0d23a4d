import pytest

from rewards.asr import text_stream_words, utterances_of_words

S = "\u2581"


@pytest.mark.parametrize("space", [S, " "])
def test_a_word_begins_at_its_first_piece_with_a_space(space):
    pieces = [None, space + "hel", "lo", None, space + "there", *[""] * 13, space + "yes", None]
    words = text_stream_words(pieces, frame_s=0.08)
    assert [text for _, text in words] == ["hello", "there", "yes"]
    assert [at for at, _ in words] == pytest.approx([0.08, 0.32, 1.44])


def test_padding_does_not_part_a_word_and_a_lone_space_is_none():
    assert text_stream_words(["he", None, "llo"], frame_s=0.08) == [(0.0, "hello")]
    assert text_stream_words([None, "", S], frame_s=0.08) == []


def test_more_than_a_second_without_a_word_parts_utterances():
    words = [("how", 0.0, 0.5), ("much", 1.5, 1.75), ("wait", 2.8, 3.0)]
    assert utterances_of_words(words) == [(0.0, "how much"), (2.8, "wait")]
    assert utterances_of_words([]) == []
