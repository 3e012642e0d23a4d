"""Turn taking: the model must answer when the user's turn ends, neither before nor long after."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rewards.checks import require_at_least_0, require_one_of
from rewards.dialogue import Dialogue
from rewards.intervals import (
    RUN_GAP_S,
    TOLERANCE_S,
    UTTERANCE_GAP_S,
    Interval,
    longer,
    runs,
    utterances,
)
from rewards.outcome import Outcome, missing
from rewards.registry import register

MIN_STD_S = 0.02
"""Spread up to which delays of a group count as equal: less than one hop of the detector."""


@dataclass(frozen=True, kw_only=True)
class TurnTakingConfig:
    """Which speech is the response, and what its delay costs.

    Attributes:
        early: a response that starts before the end of the user's turn costs "abs" its lead, so
            that barging in does not pay; "clamp" nothing (Full-Duplex-Bench); "after_only" skips
            it and takes the next run. "literal" is the formula of the paper: the first utterance
            anywhere, an early one is rewarded by its lead, and nothing is capped.
        min_utterance_s: a response lasts strictly longer.
        run_gap_s: longest gap inside a run.
        utterance_gap_s: longest gap inside an utterance.
        cross_tolerance_s: speech that ends this soon after the turn's end was not a response.
        cap: limits the delay to the time that remains, the cost of no response at all.
    """

    early: Literal["abs", "clamp", "after_only", "literal"] = "abs"
    min_utterance_s: float = 1.0
    run_gap_s: float = RUN_GAP_S
    utterance_gap_s: float = UTTERANCE_GAP_S
    cross_tolerance_s: float = 0.2
    cap: bool = True

    def __post_init__(self) -> None:
        require_at_least_0(
            self, ("min_utterance_s", "run_gap_s", "utterance_gap_s", "cross_tolerance_s")
        )
        require_one_of(self, "early", ("abs", "clamp", "after_only", "literal"))


_DEFAULTS = TurnTakingConfig()


def response_start_s(
    agent: Iterable[Interval],
    turn_end_s: float,
    duration_s: float,
    config: TurnTakingConfig = _DEFAULTS,
) -> float | None:
    """Onset of the model's response to a turn, or None if there is none.

    The response is an utterance, but it is looked for from run to run: under the 1 s rule alone a
    backchannel shortly before the end of the turn would swallow the response and move its onset.

    Args:
        agent: IPUs of the model.
        turn_end_s: end of the turn to respond to.
        duration_s: end of the segment; only speech before it makes a response long enough.
        config: see `TurnTakingConfig`.
    """
    if config.early == "literal":
        chains = utterances(agent, config.utterance_gap_s)
    else:
        speech = runs(agent, config.run_gap_s)
        chains = [
            utterances(speech[index:], config.utterance_gap_s)[0]
            for index, (start, end) in enumerate(speech)
            if start >= turn_end_s - TOLERANCE_S
            or (
                config.early != "after_only" and longer((turn_end_s, end), config.cross_tolerance_s)
            )
        ]
    for start, end in chains:
        if longer((start, min(end, duration_s)), config.min_utterance_s):
            return start
    return None


def response_delay_s(
    start_s: float | None,
    turn_end_s: float,
    duration_s: float,
    config: TurnTakingConfig = _DEFAULTS,
) -> float:
    """Cost in seconds of a response onset (`response_start_s`); none costs the remaining time."""
    remaining_s = duration_s - turn_end_s
    if start_s is None:
        return remaining_s
    delay_s = start_s - turn_end_s
    if config.early == "literal":
        return delay_s
    if delay_s < 0:
        delay_s = 0.0 if config.early == "clamp" else -delay_s
    return min(delay_s, remaining_s) if config.cap else delay_s


def response_rule(
    start_s: float | None, turn_end_s: float, delay_s: float, duration_s: float
) -> str:
    """Which case of the rule a response is: "none", "early" or "after", and whether capped."""
    if start_s is None:
        return "none"
    capped = abs(start_s - turn_end_s) > duration_s - turn_end_s + TOLERANCE_S
    when = "early" if start_s < turn_end_s - TOLERANCE_S else "after"
    return f"{when}, capped" if capped and delay_s <= duration_s - turn_end_s else when


@register("turn_taking", axes=("turn",), config=TurnTakingConfig, min_std=MIN_STD_S)
def turn_taking(dialogue: Dialogue, config: TurnTakingConfig = _DEFAULTS) -> Outcome:
    """Minus the delay of the model's response to the user's turn, in seconds.

    R_turn = -d of arXiv 2606.11167, with a cost on starting early. Missing without the label
    `user_turn_end_s`.

    Returns:
        Facts: onset_s of the response, delay_s that is charged, and `response_rule`.
    """
    turn_end_s = dialogue.user_turn_end_s
    if turn_end_s is None:
        return missing("no label user_turn_end_s")
    start_s = response_start_s(dialogue.agent, turn_end_s, dialogue.duration_s, config)
    delay_s = response_delay_s(start_s, turn_end_s, dialogue.duration_s, config)
    rule = response_rule(start_s, turn_end_s, delay_s, dialogue.duration_s)
    return Outcome(0.0 - delay_s, {"rule": rule, "onset_s": start_s, "delay_s": delay_s})
