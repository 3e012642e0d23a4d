import pytest

from rewards.judge.parse import parse_verdict


@pytest.mark.parametrize(
    ("raw", "verdict"),
    [
        ("2", 2), (" 1\n", 1), ("0", 0), ("2.", 2), ("1.0", 1), ("**2**", 2), ("'1'", 1),
        ("[2]", 2), ("<answer>1</answer>", 1), ('{"score": 2}', 2), ("**Score:** 2", 2),
        ("Score: 1 out of 2", 1), ("Score: 2/2", 2), ("I count 3 issues. Score: 1", 1),
        ("The score is 1.", 1), ("My rating: 0", 0), ("score: 1\nScore: 1", 1),
        ("Rating: 2\nThe 3 facts are right.", 2), ("The reply is good: 2", 2),
        ("<think>maybe 1, no, 0</think>\n2", 2), ("maybe 1</think> 2", 2),
        # Nothing of these is a verdict.
        ("", None), ("two", None), ("NaN", None), ("<think>it could be 2", None),
        ("<think>2</think>", None), ("1.5", None), ("3", None), ("-1", None), ("10", None),
        ("02", None), ("1 or 2", None), ("1/2", None), ("0-2", None), ("2 2", None),
        ("2nd", None), ("1.2.3", None), ("Score: -1", None), ("Score: 1/5", None),
        ("Score: 1 or 2", None), ("Score: 1-2", None), ("Score: 5", None), ("Score: 1.5", None),
        ("Score: 12", None), ("Score: two", None), ("score: 1\nscore: 2", None), ("2%", None),
        ("²", None), ("٢", None), ("2e0", None),
    ],
)  # fmt: skip
def test_verdict(raw, verdict):
    assert parse_verdict(raw) == verdict
