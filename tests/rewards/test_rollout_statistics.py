import pytest

from rewards import Dialogue
from rewards.rollout_statistics import (
    STATISTICS,
    RolloutView,
    edit_distance,
    most_common_share,
    words,
)


def view(agent=(), user=(), **values):
    return RolloutView(dialogue=Dialogue(duration_s=10.0, agent=agent, user=user), **values)


@pytest.mark.parametrize(
    ("name", "rollout", "value"),
    [
        ("silence", view(), 1.0),
        ("silence", view(((-5.0, 1.0), (2.0, 3.5), (9.0, 12.0))), 0.65),
        ("run_length", view(), None),
        ("run_length", view(((1.0, 2.0), (2.2, 3.0), (5.0, 6.0))), 1.5),
        ("repetition", view(), None),
        ("repetition", view(spoken="yes no"), None),
        ("repetition", view(spoken="a b c a b c a b"), 0.5),
        ("repetition", view(spoken="A, b? C! d"), 0.0),
        ("drift", view(spoken="a b"), None),
        ("drift", view(written="a b"), None),
        ("drift", view(spoken="a", written="..."), None),
        ("drift", view(spoken="a x c", written="a b c d"), 0.5),
        ("drift", view(spoken="u v w x y z", written="a"), 1.0),
        ("padding", view(pad_share=0.25), 0.25),
        ("padding", view(), None),
        ("overlap", view(((1.0, 5.0),)), None),
        ("overlap", view(((1.0, 3.0),), ((0.0, 2.0), (4.0, 6.0))), 0.25),
        ("undue", view(((1.0, 2.0),)), 0.0),
        ("undue", view(((1.0, 2.1),)), 1.0),
        ("undue", view(((1.0, 5.0),), response_from_s=0.5), None),
        ("empty", view(((1.0, 5.0),)), None),
        ("empty", view(((1.0, 5.0),), response_from_s=4.0), 0.0),
        ("empty", view(((1.0, 4.0),), response_from_s=4.0), 1.0),
    ],
)
def test_statistic(name, rollout, value):
    assert STATISTICS[name](rollout) == (None if value is None else pytest.approx(value))


def test_the_most_common_short_reply():
    replies = ["Mhm.", "mhm", "yeah", "mhm", "this one is too long to count", None, ""]
    assert most_common_share([view(spoken=reply) for reply in replies]) == 0.75
    assert most_common_share([view(spoken="mhm")] * 3) is None


def test_words():
    assert words("Don't stop, it's 5 o'clock_now!") == [
        "don't",
        "stop",
        "it's",
        "5",
        "o'clock",
        "now",
    ]
    assert words("...") == []


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "", 0), ("abc", "abc", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)],
)
def test_edit_distance(one, other, distance):
    assert edit_distance(list(one), list(other)) == distance
    assert edit_distance(list(other), list(one)) == distance
