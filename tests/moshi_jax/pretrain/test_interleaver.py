"""The recorded example of the reference, and the edges of its rule."""

from grpo.corpora import Word
from moshi_jax.pretrain.interleaver import text_stream

PIECES = {"one": [105], "three": [109, 110, 111], "four": [113, 114, 115, 116], "last": [101]}


def encode(text):
    return list(PIECES[text])


def test_a_later_word_takes_the_place_of_pieces_that_are_left():
    words = [
        Word("one", 0.30, 0.5),
        Word("three", 0.62, 0.9),
        Word("four", 1.0, 1.04),
        Word("last", 1.05, 1.2),
    ]
    expected = [3, 3, 0, 105, 3, 3, 0, 109, 110, 111, 3, 0, 113, 101, 3, 3]
    assert text_stream(words, 16, encode).tolist() == expected


def test_a_word_in_the_first_frame_has_no_mark_before_it():
    assert text_stream([Word("one", 0.0, 0.2)], 3, encode).tolist() == [105, 3, 3]


def test_a_word_without_duration_is_left_out():
    assert text_stream([Word("one", 0.5, 0.5)], 9, encode).tolist() == [3] * 9


def test_frame_rate_and_padding_are_those_of_the_model():
    stream = text_stream(
        [Word("one", 0.5, 0.6)], 7, encode, frame_rate=10, padding=8, end_padding=9
    )
    assert stream.tolist() == [8, 8, 8, 8, 9, 105, 8]
