"""What is composed: words lie where a channel sounds, answers answer, and habits are as asked."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from moshi_jax.nano.bank import Bank
from moshi_jax.nano.conversations import AGENT, SAMPLE_RATE, USER, Habits, Voices, compose
from moshi_jax.nano.sentences import LINES


@pytest.fixture(scope="module")
def voices(bank):
    return Voices(bank)


def many(voices, count=40, **options):
    return [compose(voices, (7, number), **options) for number in range(count)]


def said(conversation, channel):
    return " ".join(word.text for word in conversation.words[channel])


def test_the_same_seed_gives_the_same_conversation_and_another_does_not(voices):
    first, again, other = (compose(voices, seed) for seed in ((3, 5), (3, 5), (3, 6)))
    np.testing.assert_array_equal(first.pcm, again.pcm)
    assert first.words == again.words and first.events == again.events
    assert first.pcm.shape == (2, 30 * SAMPLE_RATE)
    assert not np.array_equal(first.pcm, other.pcm)


@pytest.mark.parametrize("channel", [AGENT, USER])
def test_a_channel_sounds_where_its_words_are_and_nowhere_else(voices, channel):
    for conversation in many(voices, 10):
        sounds = conversation.pcm[channel] != 0
        words = np.zeros(sounds.size, bool)
        for word in conversation.words[channel]:
            words[round(word.start_s * SAMPLE_RATE) : round(word.end_s * SAMPLE_RATE)] = True
        assert sounds.any()
        # A word that the end cut off, and the fade of 5 ms where the agent breaks off.
        stray = np.flatnonzero(sounds != words)
        stray = stray[stray < sounds.size - SAMPLE_RATE]
        assert stray.size < 0.02 * sounds.sum()


def test_the_first_thing_said_to_a_question_is_its_answer(voices):
    """Without any bad habit the two channels are a list of questions and right answers."""
    habits = replace(Habits.good(), goes_on=0.0)
    answers = {line.text: line.answers for line in LINES if line.speaker == "user"}
    for conversation in many(voices, 10, habits=habits, scenes={"question": 1.0}):
        turns = [event for event in conversation.events if event.kind == "turn"]
        assert len(turns) >= 4
        asked_from = 0.0
        for turn, following in pairwise(turns):
            question = " ".join(
                w.text for w in conversation.words[USER] if asked_from <= w.start_s < turn.end_s
            )
            answer = " ".join(
                w.text
                for w in conversation.words[AGENT]
                if turn.end_s <= w.start_s < following.end_s
            )
            assert answer in answers[question], (question, answer)
            asked_from = turn.end_s


def gaps(conversations):
    return [e.end_s - e.start_s for c in conversations for e in c.events if e.kind == "turn"]


def test_good_habits_are_prompt_silent_in_pauses_and_yielding(voices):
    conversations = many(voices, 30, habits=Habits.good())
    assert max(gaps(conversations)) <= 0.36 + Habits.good().resumes_s
    kinds = {event.kind for c in conversations for event in c.events}
    assert kinds == {"pause", "turn", "backchannel", "interruption"}
    for conversation in conversations:
        for event in conversation.events:
            if event.kind == "interruption":
                window = slice(*(int(t * SAMPLE_RATE) for t in (event.start_s + 0.45, event.end_s)))
                assert not conversation.pcm[AGENT, window].any()


def test_bad_habits_come_as_often_as_asked(voices):
    conversations = many(voices, 80, scenes={"question": 1.0})
    late = np.mean(np.array(gaps(conversations)) > 0.6)
    assert 0.5 < late < 0.75
    events = [event.kind for c in conversations for event in c.events]
    taken = events.count("takeover") / events.count("pause")
    assert 0.5 < taken < 0.7
    stories = many(voices, 60, scenes={"story": 1.0})
    events = [event.kind for c in stories for event in c.events]
    assert 0.15 < events.count("takeover") / events.count("pause") < 0.35
    assert 0.15 < events.count("backchannel") / events.count("pause") < 0.35


def test_an_agent_that_talks_through_is_heard_during_the_interruption(voices):
    through = many(voices, 12, scenes={"interruption": 1.0}, habits=Habits(talks_through=1.0))
    shares = []
    for conversation in through:
        for event in conversation.events:
            if event.kind == "interruption":
                window = slice(*(int(t * SAMPLE_RATE) for t in (event.start_s, event.end_s)))
                shares.append(np.mean(conversation.pcm[AGENT, window] != 0))
    assert len(shares) > 12 and np.mean(shares) > 0.8


def test_takeovers_last_too_long_for_a_backchannel_and_those_do_not(voices):
    for conversation in many(voices, 20):
        for event in conversation.events:
            if event.kind == "takeover":
                assert event.end_s - event.start_s > 1.0
            if event.kind == "backchannel":
                assert event.end_s - event.start_s < 1.0


def test_held_out_conversations_have_none_of_the_lines_trained_on(bank):
    def texts(split):
        return {
            (line.kind, line.text)
            for line in LINES
            if (line.speaker, line.split) == ("user", split) and line.kind != "backchannel"
        }

    voices = Voices(bank, "heldout")
    used = {
        (s.line.kind, s.line.text)
        for s in (*voices.questions, *voices.stories, *voices.interruptions)
    }
    assert used == texts("heldout") and not used & texts("train")


def test_the_agent_begins_on_the_grid_of_frames(voices):
    for conversation in many(voices, 10):
        silent = conversation.pcm[AGENT] == 0
        begins = np.flatnonzero(silent[:-1] & ~silent[1:]) + 1
        assert begins.size > 3 and not (begins % 1920).any()


def test_a_line_without_a_recording_is_named(bank):
    silent = Bank(tuple(r for r in bank.recordings if r.text != "two plus two is four"))
    with pytest.raises(ValueError, match=r"no 'two plus two is four' of the agent"):
        Voices(silent)
