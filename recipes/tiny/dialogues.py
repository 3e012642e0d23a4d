"""Endless dialogues from the turns of one: what is said stays, who speaks when is drawn anew.

The agent mostly answers after the user's turn. It also has faults, planted for GRPO to correct: it
takes the turn in every third longer pause of the user, and half of its answers come late.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from recipes.tiny.interleaver import Word, spread_words
from recipes.tiny.speech import SAMPLE_RATE, Phrase, Turn

SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How the agent of the training dialogues behaves; probabilities, and ranges in seconds."""

    takes_pause: float = 0.35
    listens_aloud: float = 0.15
    answers: float = 0.92
    answers_late: float = 0.5
    prompt_gap_s: tuple[float, float] = (0.1, 0.5)
    late_gap_s: tuple[float, float] = (0.7, 2.5)
    user_gap_s: tuple[float, float] = (0.3, 1.5)
    lead_in_s: tuple[float, float] = (0.4, 4.5)


@dataclass(kw_only=True)
class Dialogue:
    """Two channels under construction."""

    pcm: Float32[np.ndarray, "C S"] = field(
        default_factory=lambda: np.zeros((2, round(SECONDS * SAMPLE_RATE)), np.float32)
    )
    words: list[Word] = field(default_factory=list)

    def say(self, channel: int, phrase: Phrase, start_s: float, gain: float) -> float:
        """Adds a phrase; returns its end. What lies past the end of the dialogue is cut."""
        start = round(start_s * SAMPLE_RATE)
        room = self.pcm[channel, start : start + phrase.pcm.size]
        room += gain * phrase.pcm[: room.size]
        if channel == 0:
            self.words += spread_words(phrase, start_s)
        return start_s + phrase.pcm.size / SAMPLE_RATE


def compose(turns: list[Turn], rng: np.random.Generator, habits: Habits | None = None) -> Dialogue:
    """A dialogue of 30 s between the agent's voice (channel 0) and either voice as user.

    Args:
      turns: of `read_turns`.
      rng: source of every draw.
      habits: of the agent.
    """
    habits = habits or Habits()
    user = "user" if rng.random() < 0.7 else "agent"
    own = [turn for turn in turns if turn.speaker == "agent" and turn.kind != "backchannel"]
    heard = [turn for turn in turns if turn.speaker == user and turn.kind != "backchannel"]
    signs = [turn for turn in turns if turn.speaker == "agent" and turn.kind == "backchannel"]
    dialogue, gain = Dialogue(), 10 ** rng.uniform(-0.25, 0.1)
    agent_gain = 10 ** rng.uniform(-0.1, 0.1)
    free_s = 0.0  # from when on the agent is silent

    def draw(among: list[Turn]) -> Turn:
        return among[rng.integers(len(among))]

    def answer(start_s: float) -> float:
        turn = draw(own)
        first = int(rng.integers(len(turn.phrases)))
        return _speak(dialogue, 0, turn, start_s, rng, agent_gain, first=first)

    now = rng.uniform(*habits.lead_in_s)
    while now < SECONDS:
        turn = draw(heard)
        for index, phrase in enumerate(turn.phrases):
            now = dialogue.say(1, phrase, now, gain)
            if index == len(turn.phrases) - 1:
                break
            pause_s = turn.pauses_s[index] * rng.uniform(0.8, 1.3)
            start_s, chance = now + rng.uniform(0.12, 0.35), rng.random()
            if pause_s > 0.4 and start_s > free_s:
                if chance < habits.takes_pause:
                    free_s = answer(start_s)
                elif chance < habits.takes_pause + habits.listens_aloud:
                    free_s = _speak(dialogue, 0, draw(signs), start_s, rng, agent_gain)
            now += pause_s
        if rng.random() < habits.answers:
            late = rng.random() < habits.answers_late
            gap_s = rng.uniform(*(habits.late_gap_s if late else habits.prompt_gap_s))
            free_s = answer(max(now + gap_s, free_s + 0.3))
            now = free_s + rng.uniform(*habits.user_gap_s)
        else:
            now += rng.uniform(2.0, 5.0)
    dialogue.words.sort(key=lambda word: word.start_s)
    return dialogue


def _speak(
    dialogue: Dialogue,
    channel: int,
    turn: Turn,
    start_s: float,
    rng: np.random.Generator,
    gain: float,
    *,
    first: int = 0,
) -> float:
    """A turn from its phrase `first` on, with its pauses slightly changed; returns its end."""
    now = start_s
    for index in range(first, len(turn.phrases)):
        now = dialogue.say(channel, turn.phrases[index], now, gain)
        if index < len(turn.phrases) - 1:
            now += turn.pauses_s[index] * rng.uniform(0.7, 1.2)
    return now
