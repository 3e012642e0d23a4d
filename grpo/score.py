"""From generated speech to rewards: hear on the device, judge on the host.

    pcm ─ 16 kHz ─ VAD network ─▶ probabilities      (device; only these leave it)
    probabilities ─▶ speech intervals on the segment's clock ─▶ Dialogue ─▶ a value for each reward

The detector hears the whole rollout, prefix included, and the rules cut: a network that started at
the segment would miss speech carried over into it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from rewards import (
    Dialogue,
    Interval,
    resample_24k_to_16k,
    rewards_for,
    score,
    shift,
    speech_intervals,
    speech_probabilities,
)

Rewards = dict[str, Float[np.ndarray, " G"]]
"""Reward name -> one value a rollout, NaN = missing."""


def hear(vad_params: Any, pcm: Float[Array, "G S"]) -> Float[Array, "G F"]:
    """The per-device program: probability of speech in each hop of 32 ms of 24 kHz audio."""
    return speech_probabilities(vad_params, resample_24k_to_16k(pcm))


def agent_speech(probabilities: Float[np.ndarray, " F"], num_samples: int) -> list[Interval]:
    """Speech of one rollout, on the clock of the rollout."""
    return speech_intervals(probabilities, num_samples)


def score_group(
    probabilities: Float[np.ndarray, "G F"],
    *,
    num_samples: int,
    axis: str,
    labels: Mapping[str, Any],
    start_s: float,
    duration_s: float,
) -> Rewards:
    """Every reward of the axis for the rollouts of one group.

    Args:
        probabilities: of `hear`.
        num_samples: samples at 16 kHz that were heard.
        axis: of the segment.
        labels: what `Dialogue` takes for this segment.
        start_s: where the segment starts in the rollout (the length of the prefix).
        duration_s: length of the segment.

    Raises:
        ValueError: no reward is registered for the axis, or the audio was not finite.
    """
    scored = []
    for row in probabilities:
        agent = tuple(shift(agent_speech(row, num_samples), -start_s))
        dialogue = Dialogue.of_segment(duration_s=duration_s, agent=agent, labels=labels)
        scored.append(score(dialogue, axis))
    return {
        reward.name: np.array(
            [np.nan if values[reward.name] is None else values[reward.name] for values in scored]
        )
        for reward in rewards_for(axis)
    }
