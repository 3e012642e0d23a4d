"""What the two speakers of the nano model can say: a small town's desk, about 130 words in all.

The repertoire is narrow on purpose. Every question has one right answer, so a judge can tell sense
from nonsense; every word occurs in several sentences, so a small codec can learn to speak it.
Nothing here is sound: `moshi_jax.nano.bank` has the recordings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Speaker = Literal["agent", "user"]
Split = Literal["train", "heldout"]
Kind = Literal["answer", "question", "story", "interruption", "backchannel"]
Ending = Literal["fall", "level"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Something one speaker says.

    Attributes:
      speaker: who says it.
      kind: the agent has "answer" and "backchannel"; the user has "question", "story" (long, to be
        listened to), "interruption" and "backchannel".
      split: "heldout" lines are never trained on, neither by the codec nor by the language model.
      parts: what is said in one breath each; between two parts the speaker pauses but is not done.
      answers: what the agent may sensibly say after it; empty where no answer is due.
    """

    speaker: Speaker
    kind: Kind
    split: Split
    parts: tuple[str, ...]
    answers: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All parts."""
        return " ".join(self.parts)

    @property
    def endings(self) -> tuple[Ending, ...]:
        """How the voice ends each part: it falls when the speaker is done, and only then."""
        return ("level",) * (len(self.parts) - 1) + ("fall",)


FILLERS = ("um", "uh")
"""Said (and drawn out) before a pause."""

CAPITALS = {
    "france": "paris",
    "italy": "rome",
    "spain": "madrid",
    "japan": "tokyo",
    "england": "london",
    "russia": "moscow",
}
SUMS = {
    ("two", "two"): "four",
    ("three", "four"): "seven",
    ("one", "five"): "six",
    ("six", "two"): "eight",
    ("five", "four"): "nine",
    ("one", "two"): "three",
    ("four", "six"): "ten",
    ("three", "two"): "five",
}
HOURS = {
    "museum": ("nine", "five"),
    "library": ("ten", "six"),
    "market": ("eight", "three"),
    "bank": ("nine", "four"),
    "school": ("eight", "two"),
}
PRICES = {"coffee": "three", "ticket": "ten", "map": "two", "book": "eight"}

AGENT_BACKCHANNELS = ("yeah", "okay", "right", "i see")
USER_BACKCHANNELS = ("yeah", "okay", "right", "i see")
GO_ON = ("sure go ahead", "okay i am listening", "yes of course")
"""What the agent says when it was stopped."""
ENJOYED = ("that sounds like a nice day", "that is a good plan", "i am happy to hear that")
"""What the agent says to a story."""

_SMALL_TALK = (
    ("hello", ("hello how can i help you",)),
    ("hello how are you today", ("i am fine thank you",)),
    ("good morning", ("good morning what can i do for you",)),
    ("can you help me", ("yes i can help you with that",)),
    ("who are you", ("i am your guide to the town",)),
    ("thank you very much", ("you are welcome",)),
    ("thank you that is all", ("you are welcome", "goodbye and have a nice day")),
    ("goodbye", ("goodbye and have a nice day",)),
)
# Answers of the right form to nothing anybody asks: the codec's test of the agent's voice.
_NEVER_SAID = (
    "the capital of spain is london",
    "the capital of japan is rome",
    "the capital of france is moscow",
    "one plus six is seven",
    "four plus two is six",
    "five plus three is eight",
    "two plus seven is nine",
    "the museum opens at ten",
    "the library closes at four",
    "the market closes at six",
    "the school opens at nine",
    "the bank closes at three",
    "a ticket is six dollars",
    "a book is five dollars",
    "that is a nice town",
    "i am happy to help you",
)


@dataclass(frozen=True, kw_only=True)
class _Fact:
    """Ways to ask for one thing, each cut where a speaker may hesitate, and the answer."""

    questions: tuple[tuple[str, str], ...]
    answer: str


def _facts() -> list[_Fact]:
    facts = [
        _Fact(
            questions=(("what is the capital of", country), ("tell me the capital of", country)),
            answer=f"the capital of {country} is {capital}",
        )
        for country, capital in CAPITALS.items()
    ]
    facts += [
        _Fact(
            questions=((f"what is {a} plus", b), (f"how much is {a} plus", b)),
            answer=f"{a} plus {b} is {total}",
        )
        for (a, b), total in SUMS.items()
    ]
    for place, hours in HOURS.items():
        facts += [
            _Fact(
                questions=((f"when does the {place}", verb), (f"what time does the {place}", verb)),
                answer=f"the {place} {verb}s at {hour}",
            )
            for verb, hour in zip(("open", "close"), hours, strict=True)
        ]
    facts += [
        _Fact(
            questions=(("how much is a", thing), ("tell me the price of a", thing)),
            answer=f"a {thing} is {price} dollars",
        )
        for thing, price in PRICES.items()
    ]
    return facts


def _questions() -> list[Line]:
    """Every fact is asked for in training in one way at least; a third of the others are not."""
    lines = []
    for number, fact in enumerate(_facts()):
        for way, (first, rest) in enumerate(fact.questions):
            split: Split = "heldout" if way == number % 2 and number % 3 == 0 else "train"
            ways: list[tuple[str, ...]] = [(f"{first} {rest}",)]
            if way == number // 2 % 2:
                filler = f" {FILLERS[number % 2]}" if number % 4 else ""
                ways.append((first + filler, rest))
            lines += [
                Line(
                    speaker="user",
                    kind="question",
                    split=split,
                    parts=parts,
                    answers=(fact.answer,),
                )
                for parts in ways
            ]
    return lines


_STORIES: tuple[tuple[Split, tuple[str, ...]], ...] = (
    (
        "train",
        (
            "so yesterday i went to the museum",
            "and then i walked to the market",
            "and i had a coffee with my friend",
            "it was a very nice day",
        ),
    ),
    (
        "train",
        (
            "this morning i walked to the library",
            "and i got a book for my friend",
            "and then we had a coffee",
            "it was very good",
        ),
    ),
    (
        "train",
        (
            "so tomorrow we want to see the town",
            "first we go to the market",
            "and then we go to the museum",
            "i think that is a good plan",
        ),
    ),
    (
        "train",
        (
            "so today my friend is in town",
            "and we want to go to the museum",
            "and then we have a coffee",
            "i am very happy",
        ),
    ),
    (
        "heldout",
        (
            "so yesterday i walked to the library",
            "and then we go to the market",
            "and i had a coffee with my friend",
            "i am very happy",
        ),
    ),
    (
        "heldout",
        (
            "this morning i went to the museum",
            "and i got a map of the town",
            "and then we had a coffee",
            "it was a very nice day",
        ),
    ),
)
_INTERRUPTIONS: tuple[tuple[Split, str, tuple[str, ...]], ...] = (
    ("train", "stop", GO_ON),
    ("train", "wait", GO_ON),
    ("train", "wait a moment", GO_ON),
    ("train", "stop please", GO_ON),
    ("train", "okay stop", GO_ON),
    ("train", "actually when does the bank open", ("the bank opens at nine",)),
    ("train", "actually how much is a map", ("a map is two dollars",)),
    ("train", "no wait what is two plus two", ("two plus two is four",)),
    ("heldout", "wait stop", GO_ON),
    ("heldout", "please wait", GO_ON),
    ("heldout", "actually how much is a ticket", ("a ticket is ten dollars",)),
)


def _lines() -> tuple[Line, ...]:
    lines = _questions()
    for text, answers in _SMALL_TALK:
        lines.append(
            Line(speaker="user", kind="question", split="train", parts=(text,), answers=answers)
        )
    lines += [
        Line(speaker="user", kind="story", split=split, parts=parts, answers=ENJOYED)
        for split, parts in _STORIES
    ]
    lines += [
        Line(speaker="user", kind="interruption", split=split, parts=(text,), answers=answers)
        for split, text, answers in _INTERRUPTIONS
    ]
    lines += [
        Line(speaker="user", kind="backchannel", split="train", parts=(text,))
        for text in USER_BACKCHANNELS
    ]
    answers = dict.fromkeys(answer for line in lines for answer in line.answers)
    lines += [Line(speaker="agent", kind="answer", split="train", parts=(a,)) for a in answers]
    lines += [
        Line(speaker="agent", kind="answer", split="heldout", parts=(text,)) for text in _NEVER_SAID
    ]
    lines += [
        Line(speaker="agent", kind="backchannel", split="train", parts=(text,))
        for text in AGENT_BACKCHANNELS
    ]
    return tuple(lines)


LINES = _lines()
"""The whole repertoire, in a fixed order."""


def lines(speaker: Speaker, kind: Kind, split: Split = "train") -> tuple[Line, ...]:
    """The lines of one speaker, kind and split, in the order of `LINES`."""
    wanted = (speaker, kind, split)
    return tuple(line for line in LINES if (line.speaker, line.kind, line.split) == wanted)


def words() -> tuple[str, ...]:
    """Every word of the repertoire, in alphabetical order."""
    return tuple(sorted({word for line in LINES for word in line.text.split()}))
