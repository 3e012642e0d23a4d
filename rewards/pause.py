"""Pause handling: the model must not take the turn while the user pauses."""

from dataclasses import dataclass
from typing import Literal

from rewards.dialogue import Dialogue
from rewards.intervals import RUN_GAP_S, UTTERANCE_GAP_S, clip, longer, merge
from rewards.registry import register


@dataclass(frozen=True, kw_only=True)
class PauseConfig:
    """What counts as taking the turn.

    Attributes:
        max_speech_s: longest speech that is still a backchannel.
        unit: what is measured. "run" joins speech over gaps of `run_gap_s`, so that chopping it
            does not pay; "ipu" takes the detector's intervals as they are; "utterance" joins over
            gaps of 1 s.
        run_gap_s: longest gap inside a run.
    """

    max_speech_s: float = 1.0
    unit: Literal["run", "ipu", "utterance"] = "run"
    run_gap_s: float = RUN_GAP_S


_DEFAULTS = PauseConfig()


@register("pause_handling", axes=("pause",), config=PauseConfig)
def pause_handling(dialogue: Dialogue, config: PauseConfig = _DEFAULTS) -> float | None:
    """-1 if the model speaks for more than 1 s anywhere in the segment, else 0.

    The whole segment counts, not only the user's pauses (R_pause of arXiv 2606.11167). Speech
    carried over from the context is clipped first: only its part inside the segment counts.
    """
    speech = clip(dialogue.agent, 0.0, dialogue.duration_s)
    if config.unit != "ipu":
        speech = merge(speech, config.run_gap_s if config.unit == "run" else UTTERANCE_GAP_S)
    return -1.0 if any(longer(interval, config.max_speech_s) for interval in speech) else 0.0
