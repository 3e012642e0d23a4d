"""User backchannels: the user says "mhm" while the model speaks, and the model should go on.

The worked example of an axis of one's own: this file and its test are all that it takes
(`docs/rewards.md`). The mirror of `backchannel`, missing in arXiv 2606.11167: a policy that learns
to stop at interruptions learns to stop at every sound, unless something says otherwise.
"""

from dataclasses import dataclass

from rewards.checks import require_at_least_0
from rewards.dialogue import Dialogue
from rewards.intervals import RUN_GAP_S, TOLERANCE_S, clip, length_s, longer, runs, total_s
from rewards.outcome import Outcome, missing
from rewards.registry import register


@dataclass(frozen=True, kw_only=True)
class UserBackchannelConfig:
    """What is a backchannel of the user, and what is going on.

    Attributes:
        max_backchannel_s: longer speech of the user is not a backchannel.
        run_gap_s: longest gap inside a run.
        after_s: how long after the backchannel the model is listened to.
        min_share: the model went on if it speaks for at least this share of the time from the
            onset of the backchannel to `after_s` after its end.
    """

    max_backchannel_s: float = 1.0
    run_gap_s: float = RUN_GAP_S
    after_s: float = 1.0
    min_share: float = 0.6

    def __post_init__(self) -> None:
        require_at_least_0(self, ("max_backchannel_s", "run_gap_s", "after_s", "min_share"))


_DEFAULTS = UserBackchannelConfig()


@register("user_backchannel", axes=("user_backchannel",), config=UserBackchannelConfig)
def user_backchannel(dialogue: Dialogue, config: UserBackchannelConfig = _DEFAULTS) -> Outcome:
    """Minus the share of the user's backchannels at which the model stopped speaking.

    A backchannel counts if the model speaks at its onset and the segment does not end before the
    model has been listened to. Where none counts the reward is missing: a silent model was not
    tried. The backchannels are the label "user_backchannels", or the short runs of the user.

    Returns:
        Facts: rule "went on" or "stopped"; tried, stopped: counts.
    """
    label = dialogue.labels.get("user_backchannels")
    said = list(label) if isinstance(label, tuple) else runs(dialogue.user, config.run_gap_s)
    speech = runs(dialogue.agent, config.run_gap_s)
    tried = stopped = 0
    for word in said:
        window = (word[0], word[1] + config.after_s)
        speaking = any(start <= word[0] + TOLERANCE_S < end for start, end in speech)
        inside = word[0] >= -TOLERANCE_S and window[1] <= dialogue.duration_s + TOLERANCE_S
        if not (speaking and inside) or longer(word, config.max_backchannel_s):
            continue
        tried += 1
        stopped += total_s(clip(speech, *window)) < config.min_share * length_s(window)
    if not tried:
        return missing("the model does not speak at any backchannel")
    rule = "stopped" if stopped else "went on"
    return Outcome(0.0 - stopped / tried, {"rule": rule, "tried": tried, "stopped": stopped})
