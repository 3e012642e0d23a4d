"""Conversations of the nano model's world: two channels, words with times, and what happens.

The user asks, tells and barges in; the agent answers what was asked. How well the agent behaves is
an argument: the model is trained on bad habits, planted so that GRPO has something to correct.
Every conversation is a function of (seed, number).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32

from grpo.corpora import Word
from moshi_jax.nano.bank import SAMPLE_RATE, Bank, Recording
from moshi_jax.nano.sentences import ENJOYED, GO_ON, LINES, Line, Split

__all__ = [
    "SAMPLE_RATE",
    "Conversation",
    "Event",
    "Habits",
    "Spoken",
    "Voices",
    "compose",
]

AGENT, USER = 0, 1
"""Channels: the agent left, the user right, as in moshi-finetune."""
FRAME_S = 0.08
RESPONSE_S = 1.15
"""Shorter speech of the agent is a backchannel to every rule, never an answer."""

Scene = Literal["question", "story", "interruption"]
EventKind = Literal["pause", "turn", "backchannel", "takeover", "interruption"]


class Spoken(NamedTuple):
    """A line of the repertoire as it sounds: the recordings of each of its parts."""

    line: Line
    parts: tuple[tuple[Recording, ...], ...]

    @property
    def shortest_s(self) -> float:
        """Its length without pauses, as it is said fastest."""
        return sum(min(take.duration_s for take in part) for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How the agent behaves: probabilities, and ranges in seconds. The defaults are bad manners.

    Attributes:
      takes_pause: speaks up where the user hesitates within a question.
      takes_story_pause: the same within a story.
      listens: says a short word where the user pauses within a story, if it does not take it.
      late: answers late.
      prompt_gap_s: silence before an answer that is not late.
      late_gap_s: silence before one that is.
      talks_through: speaks on when the user barges in, to the end of all it had to say.
      yield_s: how long it otherwise takes to fall silent.
      reaction_s: from the beginning of a pause to what the agent says in it.
      goes_on: tells more than was asked.
      resumes_s: shortest silence of the agent between what it broke off and its answer.
    """

    takes_pause: float = 0.6
    takes_story_pause: float = 0.3
    listens: float = 0.4
    late: float = 0.6
    prompt_gap_s: tuple[float, float] = (0.05, 0.3)
    late_gap_s: tuple[float, float] = (0.64, 3.2)
    talks_through: float = 0.6
    yield_s: tuple[float, float] = (0.15, 0.4)
    reaction_s: tuple[float, float] = (0.08, 0.25)
    goes_on: float = 0.3
    resumes_s: float = 0.2

    @classmethod
    def good(cls) -> Habits:
        """What GRPO is to teach: segments are cut out of conversations with a listener like this.

        After an interruption it rests long enough for the rules to hear two utterances.
        """
        return cls(
            takes_pause=0.0,
            takes_story_pause=0.0,
            listens=1.0,
            late=0.0,
            talks_through=0.0,
            resumes_s=1.1,
        )


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
      kind: "pause" (of the user, within a turn), "turn" (from the end of the user's turn to the
        beginning of the answer), "backchannel" and "takeover" (of the agent), "interruption" (the
        user's words into the agent's).
      start_s, end_s: when.
    """

    kind: EventKind
    start_s: float
    end_s: float


@dataclass(kw_only=True)
class Conversation:
    """Two channels of equal length.

    Attributes:
      pcm: agent, user.
      words: of agent and of user, by start.
      events: by start.
    """

    pcm: Float32[np.ndarray, "2 S"]
    words: tuple[list[Word], list[Word]] = field(default_factory=lambda: ([], []))
    events: list[Event] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.pcm.shape[1] / SAMPLE_RATE

    def say(self, channel: int, take: Recording, start_s: float, *, gain: float = 1.0) -> float:
        """Adds a recording and returns its end; what lies behind the end of all is cut off."""
        start = round(start_s * SAMPLE_RATE)
        room = self.pcm[channel, start : start + take.pcm.size]
        room += gain * take.pcm[: room.size]
        self.words[channel].extend(
            Word(text, start_s + begin_s, start_s + end_s)
            for text, begin_s, end_s in take.words
            if start_s + end_s <= self.seconds
        )
        return start_s + take.duration_s

    def stop(self, channel: int, at_s: float) -> None:
        """Silences a speaker from `at_s` on, with a fade of 5 ms; words that begin later are gone.

        A word that is cut ends there.
        """
        at, fade = round(at_s * SAMPLE_RATE), round(0.005 * SAMPLE_RATE)
        ramp = self.pcm[channel, at : at + fade]
        ramp *= np.linspace(1, 0, fade, dtype=np.float32)[: ramp.size]
        self.pcm[channel, at + fade :] = 0
        kept = [
            word._replace(end_s=min(word.end_s, at_s))
            for word in self.words[channel]
            if word.start_s < at_s
        ]
        self.words[channel][:] = kept

    def note(self, kind: EventKind, start_s: float, end_s: float) -> None:
        """Adds an event, unless it reaches behind the end."""
        if end_s <= self.seconds:
            self.events.append(Event(kind=kind, start_s=start_s, end_s=end_s))


class Voices:
    """All that can be said, by who may say it when.

    Args:
      bank: recordings of the repertoire.
      split: of the user's lines: "heldout" has what nothing was trained on, where there is any. The
        agent says the same in both.

    Raises:
      ValueError: a line has no recording.
    """

    def __init__(self, bank: Bank, split: Split = "train"):
        spoken = [Spoken(line, tuple(bank.spoken(line))) for line in LINES]
        agent = {s.line.text: s for s in spoken if s.line.speaker == "agent"}
        user = [s for s in spoken if s.line.speaker == "user"]

        def of(kind: str) -> list[Spoken]:
            all_of = [s for s in user if s.line.kind == kind]
            return [s for s in all_of if s.line.split == split] or all_of

        self.questions, self.stories = of("question"), of("story")
        self.interruptions, self.user_backchannels = of("interruption"), of("backchannel")
        self.backchannels = [s for s in agent.values() if s.line.kind == "backchannel"]
        wanted = dict.fromkeys(a for s in user for a in s.line.answers)
        self.answers: Mapping[str, Spoken] = {text: agent[text] for text in wanted}
        # Facts are asked for in several ways; what the agent tells beyond them is the next one: it
        # can be learnt.
        asked = Counter(s.line.answers[0] for s in user if len(s.line.answers) == 1)
        facts = [t for t, ways in asked.items() if ways > 1 and agent[t].shortest_s >= RESPONSE_S]
        self.more = dict(zip(facts, [*facts[1:], facts[0]], strict=True))
        self.takeovers = self._long(GO_ON)
        self.story_takeovers = self._long((*GO_ON, *ENJOYED))

    def _long(self, texts: Sequence[str]) -> list[Spoken]:
        """Those that no rule takes for a backchannel; the longest one if there is none."""
        found = [self.answers[text] for text in texts]
        return [s for s in found if s.shortest_s >= RESPONSE_S] or [
            max(found, key=lambda s: s.shortest_s)
        ]


def compose(
    voices: Voices,
    seed: Sequence[int],
    *,
    seconds: float = 30.0,
    habits: Habits | None = None,
    scenes: Mapping[Scene, float] | None = None,
) -> Conversation:
    """One conversation.

    Args:
      voices: what can be said.
      seed: of every draw: a run's seed and the number of the conversation.
      seconds: its length; the last scene is cut where it ends.
      habits: of the agent.
      scenes: how often each kind of scene is played, relatively.
    """
    rates = scenes or {"question": 0.5, "story": 0.2, "interruption": 0.3}
    pcm = np.zeros((2, round(seconds * SAMPLE_RATE)), np.float32)
    play = _Play(voices, np.random.default_rng(seed), habits or Habits(), Conversation(pcm=pcm))
    names, weights = list(rates), np.array(list(rates.values()), float)
    now = play.between(0.4, 4.0)
    while now < seconds:
        now = getattr(play, names[play.rng.choice(len(names), p=weights / weights.sum())])(now)
    conversation = play.conversation
    for words in conversation.words:
        words.sort(key=lambda word: word.start_s)
    conversation.events.sort(key=lambda event: event.start_s)
    return conversation


class _Play:
    """A conversation while it is being made; scenes take their beginning and return their end."""

    def __init__(
        self, voices: Voices, rng: np.random.Generator, habits: Habits, conversation: Conversation
    ):
        self.voices, self.rng, self.habits = voices, rng, habits
        self.conversation = conversation
        self.free_s = 0.0  # from when on the agent is silent
        self.user_gain = 10 ** rng.uniform(-0.15, 0.1)

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def one_of(self, spoken: Sequence[Spoken]) -> Spoken:
        return spoken[int(self.rng.integers(len(spoken)))]

    def happens(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def question(self, start_s: float) -> float:
        """The user asks, perhaps with a pause, and the agent answers."""
        asked = self.one_of(self.voices.questions)
        end_s = self._user_turn(asked, start_s)
        first = self._answer(asked.line, end_s)
        last = self._tell(first, self._gap(end_s), more=self.happens(self.habits.goes_on))
        return last + self.between(0.4, 1.5)

    def story(self, start_s: float) -> float:
        """The user tells something long; the agent listens, then says something to it."""
        told = self.one_of(self.voices.stories)
        end_s = self._user_turn(told, start_s)
        reply = self._answer(told.line, end_s)
        return self._tell(reply, self._gap(end_s), more=False) + self.between(0.4, 1.5)

    def interruption(self, start_s: float) -> float:
        """The user asks, and barges in while the agent tells more than that."""
        facts = [s for s in self.voices.questions if s.line.answers[0] in self.voices.more]
        asked = self.one_of(facts)
        end_s = self._user_turn(asked, start_s)
        begin_s = self._gap(end_s)
        first = self._answer(asked.line, end_s)
        talk_end_s = self._tell(first, begin_s, more=True, facts=3)
        # Late enough that the user's words do not belong to the turn before.
        earliest = max(begin_s + 0.8, end_s + 1.15)
        cut_s = self.between(earliest, max(earliest + 0.1, talk_end_s - 1.0))
        barge_in = self.one_of(self.voices.interruptions)
        stop_s = self._user_turn(barge_in, cut_s)
        self.conversation.note("interruption", cut_s, stop_s)
        if not self.happens(self.habits.talks_through):
            self.free_s = cut_s + self.between(*self.habits.yield_s)
            self.conversation.stop(AGENT, self.free_s)
        answer = self._answer(barge_in.line, stop_s)
        last = self._tell(
            answer, max(self._gap(stop_s), self.free_s + self.habits.resumes_s), more=False
        )
        return last + self.between(0.4, 1.5)

    def _user_turn(self, spoken: Spoken, start_s: float) -> float:
        """Everything the user says, and what the agent does in the pauses; its end."""
        now, story = start_s, spoken.line.kind == "story"
        for number, takes in enumerate(spoken.parts):
            take = takes[self.rng.integers(len(takes))]
            now = self.conversation.say(USER, take, now, gain=self.user_gain)
            if number == len(spoken.parts) - 1:
                break
            pause_s = self.between(0.45, 0.95)
            self.conversation.note("pause", now, now + pause_s)
            self._in_pause(now, story=story)
            now += pause_s
        return now

    def _in_pause(self, start_s: float, *, story: bool) -> None:
        begin_s = start_s + self.between(*self.habits.reaction_s)
        takes = self.habits.takes_story_pause if story else self.habits.takes_pause
        takes, listens = self.happens(takes), self.happens(self.habits.listens)
        if begin_s < self.free_s + 0.2:
            return
        if takes:
            among = self.voices.story_takeovers if story else self.voices.takeovers
            self._speak(self.one_of(among), begin_s, "takeover")
        elif story and listens:
            self._speak(self.one_of(self.voices.backchannels), begin_s, "backchannel")

    def _gap(self, end_s: float) -> float:
        """When the agent answers a turn that ended at `end_s`."""
        habits = self.habits
        late = self.happens(habits.late)
        gap_s = self.between(*(habits.late_gap_s if late else habits.prompt_gap_s))
        return max(end_s + gap_s, self.free_s + 0.2)

    def _answer(self, line: Line, end_s: float) -> str:
        """What the agent answers: long enough to be one to every rule, if the line allows it."""
        texts = [t for t in line.answers if self.voices.answers[t].shortest_s >= RESPONSE_S]
        return (texts or list(line.answers))[self.rng.integers(len(texts or line.answers))]

    def _tell(self, text: str, start_s: float, *, more: bool, facts: int = 1) -> float:
        """An answer, and the facts that the agent adds; its end."""
        turn_end_s = max((w.end_s for w in self.conversation.words[USER]), default=start_s)
        self.conversation.note("turn", turn_end_s, self._speak(self.voices.answers[text], start_s))
        for _ in range(facts if more and text in self.voices.more else 0):
            text = self.voices.more[text]
            self._speak(self.voices.answers[text], self.free_s + self.between(0.1, 0.2))
        return self.free_s

    def _speak(self, spoken: Spoken, start_s: float, event: EventKind | None = None) -> float:
        """The agent says a line from the next frame on; when it begins."""
        (takes,) = spoken.parts
        take = takes[self.rng.integers(len(takes))]
        # The agent's recordings are periodic in the frame: only on the grid does its codec know it.
        begin_s = math.ceil(start_s / FRAME_S - 1e-6) * FRAME_S
        self.free_s = self.conversation.say(AGENT, take, begin_s)
        if event is not None:
            self.conversation.note(event, begin_s, self.free_s)
        return begin_s
