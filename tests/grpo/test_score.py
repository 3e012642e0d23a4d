"""From audio to rewards: the clock of the segment, missing values, silence."""

import jax.numpy as jnp
import numpy as np
import pytest

from grpo.score import hear, score_group
from rewards import load_vad
from rewards.vad import HOP_SAMPLES, SAMPLE_RATE

HOP_S = HOP_SAMPLES / SAMPLE_RATE


def probabilities(*spans, duration_s):
    """One row a rollout: certain speech in its spans (seconds), certain silence elsewhere."""
    rows = np.zeros((len(spans), round(duration_s / HOP_S)), np.float32)
    for row, (start, end) in zip(rows, spans, strict=True):
        row[round(start / HOP_S) : round(end / HOP_S)] = 1.0
    return rows


def test_silence_is_heard_as_silence():
    pcm = np.zeros((2, 24_000), np.float32)
    heard = np.asarray(hear(load_vad(), jnp.asarray(pcm)))
    assert heard.shape == (2, -(-SAMPLE_RATE // HOP_SAMPLES))
    assert heard.max() < 0.35


def test_delay_is_measured_on_the_clock_of_the_segment():
    # Segment from 3.2 s of the rollout, the user's turn ends 4.0 s into it: at 7.2 s.
    rows = probabilities((8.0, 10.4), (7.2, 10.4), (0.0, 0.0), duration_s=12.8)
    rewards = score_group(
        rows,
        num_samples=rows.shape[1] * HOP_SAMPLES,
        axis="turn",
        labels={"user_turn_end_s": 4.0},
        start_s=3.2,
        duration_s=9.6,
    )
    # The detector widens speech by 30 ms: onsets at 7.97 and 7.17 s. No answer costs what remains.
    np.testing.assert_allclose(rewards["turn_taking"], [-0.77, -0.03, -5.6], atol=1e-6)


def test_speech_in_the_prefix_is_not_in_the_segment():
    rows = probabilities((0.0, 3.0), (4.0, 6.0), (4.0, 4.8), duration_s=8.0)
    rewards = score_group(
        rows,
        num_samples=rows.shape[1] * HOP_SAMPLES,
        axis="pause",
        labels={},
        start_s=3.2,
        duration_s=4.8,
    )
    np.testing.assert_array_equal(rewards["pause_handling"], [0, -1, 0])


def test_a_reward_without_its_label_is_missing():
    rows = probabilities((1.0, 3.0), duration_s=4.8)
    rewards = score_group(
        rows,
        num_samples=rows.shape[1] * HOP_SAMPLES,
        axis="turn",
        labels={},
        start_s=0.0,
        duration_s=4.8,
    )
    assert np.isnan(rewards["turn_taking"]).all()


def test_an_axis_without_rule_is_an_error():
    rows = probabilities((1.0, 3.0), duration_s=4.8)
    with pytest.raises(ValueError, match="no reward for axis 'singing'"):
        score_group(
            rows,
            num_samples=rows.shape[1] * HOP_SAMPLES,
            axis="singing",
            labels={},
            start_s=0.0,
            duration_s=4.8,
        )
