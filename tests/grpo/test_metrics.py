"""Metrics of an epoch: masks, missing values, the alarm."""

import logging

import numpy as np
import pytest

from grpo.metrics import agreement, progress_line, reward_metrics


def test_agreement_looks_at_the_mask_only_and_warns(caplog):
    decode = np.log(np.array([[[0.2, 0.5, 0.9, 0.1]]]))
    forced = decode + np.array([0.0, 0.0, 0.0, 3.0])
    mask = np.array([[True, True, True, False]])
    with caplog.at_level(logging.WARNING, "grpo"):
        metrics = agreement(decode, forced, mask)
        assert not caplog.records
        assert metrics["sampler_trainer/logp_diff_max"] == 0
        assert metrics["sampler_trainer/probs_pearson_corr"] == pytest.approx(1)
        worse = agreement(decode, forced, np.ones_like(mask))
    assert worse["sampler_trainer/logp_diff_mean"] == pytest.approx(0.75)
    assert "differ by 0.75 nats" in caplog.text


def test_reward_metrics_leave_out_what_is_missing():
    rewards = [
        {"pause_handling": np.array([-1.0, 0.0, np.nan])},
        {"pause_handling": np.array([0.0, 0.0, 0.0])},
    ]
    advantages = np.array([[-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    metrics = reward_metrics(("pause", "turn"), ["pause", "pause"], rewards, advantages)
    assert metrics == {
        "advantage/nonzero_frac": pytest.approx(1 / 3),
        "rewards/valid_frac": pytest.approx(5 / 6),
        "advantage/zero_variance/pause": 0.5,
        "advantage/zero_variance/turn": None,
        "rewards/pause/pause_handling": pytest.approx(-0.2),
        "rewards/turn/turn_taking": None,
    }


def test_progress_line_leaves_out_what_is_missing():
    metrics = {
        "rewards/pause/pause_handling": -0.25,
        "rewards/turn/turn_taking": None,
        "kl": 0.001,
        "grad_norm": 1.0,
        "rollout_frames_per_s": 250.4,
    }
    assert progress_line(metrics) == (
        "rewards/pause/pause_handling -0.25, kl 0.001, grad_norm 1, 250 frames/s"
    )
