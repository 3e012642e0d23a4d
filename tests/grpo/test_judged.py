"""Rules and judge together: who is asked what, and what stays missing."""

import numpy as np
import pytest

from grpo.judged import JudgedScorer, Writing
from rewards import load_vad
from rewards.asr import Transcript, TranscriptCache
from rewards.judge import Case, Turn, Verdict
from rewards.judge.outage import Decision

HOP_S = 0.032
START_S, DURATION_S, TOTAL_S = 3.2, 9.6, 12.8


class FakeJudge:
    """Grades by a table of replies."""

    name, exhausted = "fake", False

    def __init__(self, grades):
        self.grades, self.cases = grades, []

    def submit(self, cases):
        self.cases += cases
        verdicts = [Verdict(self.grades.get(case.reply), "judged") for case in cases]

        class Done:
            def done(self):
                return True

            def result(self, timeout_s=None):
                return verdicts

        return Done()

    def available(self):
        return True

    def close(self):
        pass


class FakeRecognizer:
    """Says how loud a clip is: that is how the test tells its rows apart."""

    name, version = "fake", "1"

    def transcribe(self, batch):
        levels = [round(float(np.abs(clip).max()), 1) for clip in batch]
        return [None if level == 0.9 else Transcript(f"level {level}") for level in levels]


def row(level, *spans):
    pcm = np.zeros(round(TOTAL_S * 24_000), np.float32)
    heard = np.zeros(round(TOTAL_S / HOP_S), np.float32)
    for start, end in spans:
        pcm[round(start * 24_000) : round(end * 24_000)] = level
        heard[round(start / HOP_S) : round(end / HOP_S)] = 1.0
    return heard, pcm


@pytest.fixture
def score(monkeypatch):
    """score(rows, ...) with the user speaking from 3.2 to 7.2 s; `score.judge` saw the cases."""
    judge = FakeJudge({"level 0.3": 2.0, "level 0.5": 1.0})
    scorer = JudgedScorer(judge, FakeRecognizer(), TranscriptCache(), load_vad())
    monkeypatch.setattr("grpo.judged.detect_speech", lambda *_, **__: [[(3.2, 7.2)]])

    def run(rows, axis="turn", user_level=0.2, text=None, user_words=None, **decision):
        scorer.decision = Decision(**decision)
        user = row(user_level, (3.2, 7.2))[1]
        return scorer(
            np.stack([heard for heard, _ in rows]),
            pcm=np.stack([pcm for _, pcm in rows]),
            text=np.full((len(rows), 1), 3) if text is None else np.array(text),
            user=user,
            user_words=user_words,
            num_samples=round(TOTAL_S * 16_000),
            axis=axis,
            labels={"user_turn_end_s": 4.0} if axis == "turn" else {},
            start_s=START_S,
            duration_s=DURATION_S,
        )

    run.judge, run.scorer = judge, scorer
    return run


def test_each_reply_is_judged_on_the_clock_of_its_rollout(score):
    rewards = score([row(0.3, (8.0, 10.4)), row(0.5, (0.2, 1.5), (7.52, 10.4))])
    np.testing.assert_allclose(rewards["turn_taking"], [-0.77, -0.29], atol=1e-2)
    np.testing.assert_array_equal(rewards["judge"], [2.0, 1.0])
    greeting = Turn("model", "level 0.5")
    user = Turn("user", "level 0.2")
    assert score.judge.cases == [
        Case((user,), "level 0.3"),
        Case((greeting, user), "level 0.5"),
    ]


def test_what_could_not_be_heard_or_judged_is_missing(score):
    rewards = score([row(0.3, (8.0, 10.4)), row(0.9, (8.0, 10.4)), row(0.7, (8.0, 10.4))])
    np.testing.assert_array_equal(rewards["judge"], [2.0, np.nan, np.nan])
    assert np.isfinite(rewards["turn_taking"]).all()
    assert len(score.judge.cases) == 2  # the second was not heard
    assert np.isnan(score([row(0.3, (8.0, 10.4))], user_level=0.9)["judge"]).all()


def test_no_response_is_an_empty_reply(score):
    score([row(0.3, (0.2, 1.5))])
    assert score.judge.cases[0].reply == ""


def test_axes_without_judge_are_as_ever(score):
    rewards = score([row(0.3, (8.0, 10.4))], axis="pause")
    assert list(rewards) == ["pause_handling"]
    assert score.judge.cases == []


def test_an_outage_leaves_no_delay_without_verdict_unless_that_was_asked_for(score):
    rows = [row(0.3, (8.0, 10.4))]
    deferred = score(rows, draw="without judge", judge=False)
    assert np.isnan(deferred["turn_taking"]).all() and np.isnan(deferred["judge"]).all()
    degraded = score(rows, judge=False)
    assert np.isfinite(degraded["turn_taking"]).all() and np.isnan(degraded["judge"]).all()
    pause = score(rows, axis="pause", draw="without judge", judge=False)
    assert np.isfinite(pause["pause_handling"]).all()
    assert score.judge.cases == []


WORDS = (("what", 3.3, 3.5), ("time", 3.6, 4.0), ("thanks", 7.0, 7.2), ("late", 12.9, 13.0))


def written(**at):
    """Text tokens with the words of `PIECES` at the given frames."""
    row = np.full(170, 3)
    for name, frames in at.items():
        row[frames] = list(PIECES.values()).index(f" {name}") + 10
    return row


PIECES = dict(enumerate((" sure", " nine", " never"), 10))


def test_a_transcript_of_the_user_is_not_heard_again(score):
    score([row(0.3, (8.0, 10.4))], user_words=WORDS, user_level=0.9)  # 0.9: cannot be heard
    (case,) = score.judge.cases
    assert case.history == (Turn("user", "what time thanks"),)


def test_with_the_text_stream_the_rollouts_are_read(score):
    score.scorer._recognizer = Writing(lambda token: PIECES.get(token, ""), 0.08)
    # Heard from 8.0 s on; the reply is written 0.4 s earlier, and something 5 s earlier.
    text = [written(sure=[38], nine=[95], never=[161])]
    score([row(0.3, (3.1, 3.6), (8.0, 10.4))], text=text, user_words=WORDS)
    (case,) = score.judge.cases
    assert case.history == (Turn("model", "sure"), Turn("user", "what time thanks"))
    assert case.reply == "nine"  # "never" comes after the end of the segment


def test_the_text_stream_needs_words_of_the_user(score):
    score.scorer._recognizer = Writing(lambda token: "", 0.08)
    with pytest.raises(ValueError, match=r"no words of the user.*choose another --asr\.kind"):
        score([row(0.3, (8.0, 10.4))], text=[written()])
