"""From two transcripts to a case: what was said before the reply, and the reply."""

from collections.abc import Iterable
from itertools import groupby

from rewards.intervals import TOLERANCE_S
from rewards.judge.protocol import Case, Turn

Said = tuple[float, str]
"""When an utterance began, in seconds, and its words."""


def build_case(user: Iterable[Said], agent: Iterable[Said], *, reply_start_s: float | None) -> Case:
    """Order the utterances of both sides and cut off the reply.

    Args:
        user: utterances of the user, over context and segment.
        agent: those of the model, on the same clock.
        reply_start_s: onset of the response (fact "onset_s" of the timing rule); None if there is
            none: the reply is empty then.

    Returns:
        The case: utterances sorted by start, those of one speaker in a row joined to one turn;
        the reply is all that the model says from the onset on. What the user says after the
        onset is not part of it: the reply could not answer that.
    """
    border = float("inf") if reply_start_s is None else reply_start_s - TOLERANCE_S
    said = sorted(
        [(start, "user", text) for start, text in user if start < border]
        + [(start, "model", text) for start, text in agent if start < border]
    )
    history = tuple(
        Turn(speaker, joined)  # type: ignore[bad-argument-type]
        for speaker, group in groupby(said, key=lambda item: item[1])
        if (joined := _join(text for _, _, text in group))
    )
    reply = _join(text for start, text in sorted(agent) if start >= border)
    return Case(history, reply)


def _join(texts: Iterable[str]) -> str:
    return " ".join(" ".join(texts).split())
