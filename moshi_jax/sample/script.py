"""Who says what, when, and over whom in the sample conversation.

Two friends plan a day at the lake. Both assignments of the roles (model and user) hold every
situation the alignment rules look for (arXiv 2606.11167, section 3: pauses, turn changes,
backchannels, interruptions).
"""

from __future__ import annotations

import dataclasses

__all__ = ["SCRIPT", "Backchannel", "Turn", "other"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backchannel:
    """A short sign of listening, `delay_s` after the end of a phrase of the other's turn."""

    text: str
    after_phrase: int
    delay_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """Phrases (str) and the pauses between them (seconds), `gap_s` after the turn before.

    A negative gap is a barge-in: it starts while the turn before, written to break off, still has
    that long to go.
    """

    speaker: str
    gap_s: float
    parts: tuple[str | float, ...]
    backchannels: tuple[Backchannel, ...] = ()


def other(speaker: str) -> str:
    """The one who listens."""
    return "user" if speaker == "agent" else "agent"


def _turn(speaker: str, gap_s: float, *parts: str | float | Backchannel) -> Turn:
    return Turn(
        speaker=speaker,
        gap_s=gap_s,
        parts=tuple(part for part in parts if not isinstance(part, Backchannel)),
        backchannels=tuple(part for part in parts if isinstance(part, Backchannel)),
    )


def _listen(text: str, after_phrase: int, delay_s: float) -> Backchannel:
    return Backchannel(text=text, after_phrase=after_phrase, delay_s=delay_s)


SCRIPT = (
    # Prompt answers: long turns with pauses, the other one is silent in them.
    _turn("user", 0.0, "Hi there.", 0.45, "I finally have a free weekend", 0.7,
          "and I want to drive up to the lake."),
    _turn("agent", 0.25, "That sounds like a lovely plan.", 0.5,
          "The leaves should be turning by now", 0.6, "and the road is quiet in the morning."),
    _turn("user", 0.2, "We could leave around seven,", 0.85,
          "stop for breakfast on the way,", 0.4, "and be there before noon."),
    _turn("agent", 0.3, "Seven works well for me.", 0.55,
          "There is a small bakery near the old bridge", 0.75, "with the best cinnamon rolls."),
    _turn("user", 0.15, "You are making me hungry.", 0.65,
          "Maybe we should pack some lunch", 0.5, "and eat it by the water."),
    _turn("agent", 0.35, "I can bring sandwiches and apples.", 0.8,
          "If you bring something warm to drink", 0.35, "we will be fine all day."),
    _turn("user", 0.2, "I will make a big pot of tea.", 0.9,
          "We also need a blanket", 0.3, "because the benches are wet."),
    # Listening: the holder of the turn keeps it.
    _turn("agent", 0.3, "Last year I walked the trail around the lake,", 0.7,
          _listen("Right.", 1, 0.1),
          "and it took me almost five hours with all the stops,", 0.8,
          _listen("Wow.", 2, 0.2),
          "because there is so much to see."),
    _turn("user", 0.6, "My sister found a lookout on the north side.", 0.75,
          _listen("Right.", 1, 0.2),
          "You climb some wooden stairs", 0.65,
          _listen("Yeah.", 2, 0.1),
          "and then you can see the mountains."),
    _turn("agent", 0.65, "I think I have seen a picture of that place.", 0.6,
          _listen("Yeah.", 1, 0.1),
          "The stairs were closed for repairs in the spring", 0.45,
          _listen("Sure.", 2, -0.2),
          "but they should be open again."),
    _turn("user", 0.7, "Then let us try it after lunch.", 0.7,
          _listen("Okay.", 1, 0.1),
          "My camera has been in a drawer for months", 0.5,
          _listen("I see.", 2, -0.2),
          "so this is a good reason to use it."),
    # Barge-ins: the agent takes the turn from the user, later the user from the agent.
    _turn("agent", 0.3, "I would love to see your pictures.", 0.6,
          "The ones from the harbor were really something special."),
    _turn("user", 0.35, "I will charge the battery tonight.", 0.5,
          "On the way home we could take the highway and stop at the"),
    _turn("agent", -0.7, "Sorry to cut in but the highway is closed on Sunday.", 0.5,
          "They are fixing the tunnel all day long."),
    _turn("user", 0.3, "Oh I did not know that.", 0.55,
          "Then we take the valley road.", 0.7, "It is slower but prettier."),
    _turn("agent", 0.25, "The valley road is perfect.", 0.5,
          "My uncle has a farm out there with goats and chickens", 0.4,
          "and he always tells us to come over and"),
    _turn("user", -0.9, "Wait before I forget to ask you,", 0.45,
          "can your dog come along with us this time?"),
    _turn("agent", 0.3, "Of course she loves the water more than anything.", 0.65,
          "I will bring an old towel so your car stays nice and dry."),
)  # fmt: skip
