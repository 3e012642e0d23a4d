"""Rewards: speech intervals of both channels, and the rules of interactivity over them.

Rules are pure functions of a `Dialogue`; they return an `Outcome`: a number or *missing*, and what
they measured. Every file of `rewards/axes` is loaded here.
"""

from rewards.axes.backchannel import BackchannelConfig, backchanneling
from rewards.axes.interruption import InterruptionConfig, user_interruption
from rewards.axes.pause import PauseConfig, pause_handling
from rewards.axes.turn_taking import (
    TurnTakingConfig,
    response_delay_s,
    response_start_s,
    turn_taking,
)
from rewards.dialogue import Dialogue
from rewards.intervals import (
    Interval,
    clip,
    merge,
    pauses,
    runs,
    shift,
    total_s,
    utterances,
)
from rewards.monitors import (
    THRESHOLDS,
    Finding,
    Mean,
    Monitors,
    Threshold,
    statistics_table,
)
from rewards.outcome import Outcome, missing
from rewards.registry import (
    REWARDS,
    Reward,
    load_axes,
    load_module,
    outcomes,
    register,
    reward_axes,
    rewards_for,
    score,
)
from rewards.resample import resample_24k_to_16k
from rewards.rollout_statistics import STATISTICS, RolloutView
from rewards.stored import Scored, read_dialogues, score_file
from rewards.timestamps import VadConfig, detect_speech, speech_intervals
from rewards.vad import (
    VadState,
    initial_state,
    load_vad,
    speech_probabilities,
    stream_probabilities,
)

load_axes()

__all__ = [
    "REWARDS",
    "STATISTICS",
    "THRESHOLDS",
    "BackchannelConfig",
    "Dialogue",
    "Finding",
    "InterruptionConfig",
    "Interval",
    "Mean",
    "Monitors",
    "Outcome",
    "PauseConfig",
    "Reward",
    "RolloutView",
    "Scored",
    "Threshold",
    "TurnTakingConfig",
    "VadConfig",
    "VadState",
    "backchanneling",
    "clip",
    "detect_speech",
    "initial_state",
    "load_module",
    "load_vad",
    "merge",
    "missing",
    "outcomes",
    "pause_handling",
    "pauses",
    "read_dialogues",
    "register",
    "resample_24k_to_16k",
    "response_delay_s",
    "response_start_s",
    "reward_axes",
    "rewards_for",
    "runs",
    "score",
    "score_file",
    "shift",
    "speech_intervals",
    "speech_probabilities",
    "statistics_table",
    "stream_probabilities",
    "total_s",
    "turn_taking",
    "user_interruption",
    "utterances",
]
