"""The repertoire: narrow, complete, and held out by content."""

from moshi_jax.nano.sentences import (
    AGENT_BACKCHANNELS,
    FILLERS,
    LINES,
    USER_BACKCHANNELS,
    lines,
    words,
)


def test_every_answer_is_a_line_the_agent_is_trained_to_say():
    known = {line.text for line in lines("agent", "answer")}
    assert {answer for line in LINES for answer in line.answers} == known
    asked = [line for line in LINES if line.kind in ("question", "story", "interruption")]
    assert all(line.answers for line in asked)


def test_a_heldout_question_is_new_but_its_answer_can_be_learnt():
    trained = lines("user", "question")
    for line in lines("user", "question", "heldout"):
        assert line.text not in {other.text for other in trained}
        assert any(line.answers == other.answers for other in trained), line.text


def test_heldout_lines_hold_no_word_that_training_lacks():
    for speaker in ("agent", "user"):
        own = [line for line in LINES if line.speaker == speaker]
        trained = {w for line in own if line.split == "train" for w in line.text.split()}
        heldout = {w for line in own if line.split == "heldout" for w in line.text.split()}
        assert heldout and heldout <= trained
        texts = [{line.text for line in own if line.split == s} for s in ("train", "heldout")]
        assert not texts[0] & texts[1]


def test_a_speaker_who_pauses_is_heard_not_to_be_done():
    broken = [line for line in lines("user", "question") if len(line.parts) > 1]
    assert len(broken) > 15
    assert {"level", "fall"} == {e for line in broken for e in line.endings}
    assert all(line.endings[-1] == "fall" and "fall" not in line.endings[:-1] for line in broken)
    assert {line.parts[0].split()[-1] for line in broken} >= set(FILLERS)


def test_the_repertoire_is_small():
    agent = [line for line in LINES if line.speaker == "agent"]
    assert 50 <= len(agent) <= 70 and 90 <= len(LINES) - len(agent) <= 130
    assert len(words()) <= 150
    assert "hmm" not in " ".join(AGENT_BACKCHANNELS + USER_BACKCHANNELS)
