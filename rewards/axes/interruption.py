"""User interruption: when the user barges in, the model must stop and then answer."""

from dataclasses import dataclass
from typing import Literal

from rewards.axes.turn_taking import (
    MIN_STD_S,
    TurnTakingConfig,
    response_delay_s,
    response_rule,
    response_start_s,
)
from rewards.checks import require_at_least_0, require_one_of
from rewards.dialogue import Dialogue
from rewards.intervals import TOLERANCE_S, clip, total_s
from rewards.outcome import Outcome, missing
from rewards.registry import register


@dataclass(frozen=True, kw_only=True)
class InterruptionConfig(TurnTakingConfig):
    """`TurnTakingConfig` with the end of the interruption as the end of the turn.

    Attributes:
        early_floor: where an early response begins to cost. "interrupt_start": speech before the
            interruption is the model's own turn, talking through it costs its whole length;
            "none": the lead counts from the start of the speech.
        require_prior_speech: missing if the model did not speak before the interruption. Without
            it a silent model loses nothing by never having been interrupted.
        yield_weight: cost of a second of speech during the interruption, after `yield_grace_s`.
        yield_grace_s: time to notice the interruption.
    """

    early_floor: Literal["interrupt_start", "none"] = "interrupt_start"
    require_prior_speech: bool = False
    yield_weight: float = 0.0
    yield_grace_s: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of(self, "early_floor", ("interrupt_start", "none"))
        require_at_least_0(self, ("yield_weight", "yield_grace_s"))


_DEFAULTS = InterruptionConfig()


@register("user_interruption", axes=("interruption",), config=InterruptionConfig, min_std=MIN_STD_S)
def user_interruption(dialogue: Dialogue, config: InterruptionConfig = _DEFAULTS) -> Outcome:
    """Minus the delay of the model's answer to an interruption, in seconds.

    R_int = -d of arXiv 2606.11167, with a cost on talking through the interruption. Missing
    without the label `interruption`.

    Returns:
        Facts: as `turn_taking`, and talked_through_s: speech during the interruption.
    """
    if dialogue.interruption is None:
        return missing("no label interruption")
    begin_s, end_s = dialogue.interruption
    if config.require_prior_speech and not any(
        start < begin_s - TOLERANCE_S for start, _ in dialogue.agent
    ):
        return missing("no speech before the interruption")
    start_s = response_start_s(dialogue.agent, end_s, dialogue.duration_s, config)
    if start_s is not None and config.early != "literal" and config.early_floor != "none":
        start_s = max(start_s, begin_s)
    delay_s = response_delay_s(start_s, end_s, dialogue.duration_s, config)
    talked_through_s = total_s(clip(dialogue.agent, begin_s, end_s))
    unyielding_s = max(0.0, talked_through_s - config.yield_grace_s)
    facts = {
        "rule": response_rule(start_s, end_s, delay_s, dialogue.duration_s),
        "onset_s": start_s,
        "delay_s": delay_s,
        "talked_through_s": talked_through_s,
    }
    return Outcome(0.0 - delay_s - config.yield_weight * unyielding_s, facts)
