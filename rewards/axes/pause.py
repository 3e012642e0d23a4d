"""Pause handling: the model must not take the turn while the user pauses."""

from dataclasses import dataclass
from typing import Literal

from rewards.checks import require_at_least_0, require_one_of
from rewards.dialogue import Dialogue
from rewards.intervals import RUN_GAP_S, UTTERANCE_GAP_S, clip, length_s, longer, merge
from rewards.outcome import Outcome
from rewards.registry import register


@dataclass(frozen=True, kw_only=True)
class PauseConfig:
    """What counts as taking the turn.

    Attributes:
        max_speech_s: longest speech that is still a backchannel.
        unit: what is measured. "run" joins speech over gaps of `run_gap_s`, so that chopping it
            does not pay; "ipu" takes the detector's intervals as they are; "utterance" joins over
            gaps of `utterance_gap_s`.
        run_gap_s: longest gap inside a run.
        utterance_gap_s: longest gap inside an utterance.
    """

    max_speech_s: float = 1.0
    unit: Literal["run", "ipu", "utterance"] = "run"
    run_gap_s: float = RUN_GAP_S
    utterance_gap_s: float = UTTERANCE_GAP_S

    def __post_init__(self) -> None:
        require_at_least_0(self, ("max_speech_s", "run_gap_s", "utterance_gap_s"))
        require_one_of(self, "unit", ("run", "ipu", "utterance"))


_DEFAULTS = PauseConfig()


@register("pause_handling", axes=("pause",), config=PauseConfig)
def pause_handling(dialogue: Dialogue, config: PauseConfig = _DEFAULTS) -> Outcome:
    """-1 if the model speaks for more than 1 s anywhere in the segment, else 0.

    The whole segment counts, not only the user's pauses (R_pause of arXiv 2606.11167). Speech
    carried over from the context is clipped first: only its part inside the segment counts.

    Returns:
        Facts: rule "silent", "short" or "takeover"; onset_s and longest_s of the longest speech.
    """
    speech = clip(dialogue.agent, 0.0, dialogue.duration_s)
    if config.unit != "ipu":
        gap_s = config.run_gap_s if config.unit == "run" else config.utterance_gap_s
        speech = merge(speech, gap_s)
    if not speech:
        return Outcome(0.0, {"rule": "silent", "onset_s": None, "longest_s": 0.0})
    longest = max(speech, key=length_s)
    takeover = longer(longest, config.max_speech_s)
    facts = {
        "rule": "takeover" if takeover else "short",
        "onset_s": longest[0],
        "longest_s": length_s(longest),
    }
    return Outcome(-1.0 if takeover else 0.0, facts)
