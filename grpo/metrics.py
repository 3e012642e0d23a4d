"""What an epoch says about itself: rewards, and whether rollouts and updates run the same model."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from grpo.score import Rewards
from rewards import rewards_for

logger = logging.getLogger("grpo")

AGREEMENT_ALARM = 0.01
"""Mean difference of decode-time and teacher-forced log-probs, in nats, that is worth a warning."""


def reward_metrics(
    axes: Sequence[str],
    drawn_axes: Sequence[str],
    rewards: Sequence[Rewards],
    advantages: Float[np.ndarray, "N G"],
) -> dict[str, float | None]:
    """Mean of every reward over the groups of its axis, and the share of groups without a signal.

    Args:
        axes: of the run; None stands where the epoch drew no group of one.
        drawn_axes: the axis of each group.
        rewards: of each group.
        advantages: of each group.
    """
    silent = np.all(advantages == 0, axis=1)
    metrics: dict[str, float | None] = {"advantage/nonzero_frac": float((advantages != 0).mean())}
    for axis in axes:
        drawn = [group for group, name in enumerate(drawn_axes) if name == axis]
        share = silent[drawn].mean() if drawn else None
        metrics[f"advantage/zero_variance/{axis}"] = None if share is None else float(share)
        for reward in rewards_for(axis):
            values = np.concatenate([rewards[group][reward.name] for group in drawn] or [[]])
            valid = values[~np.isnan(values)]
            mean = float(valid.mean()) if valid.size else None
            metrics[f"rewards/{axis}/{reward.name}"] = mean
    return metrics


def agreement(
    decode: Float[np.ndarray, "N G T"],
    forced: Float[np.ndarray, "N G T"],
    mask: Bool[np.ndarray, "N G T"],
) -> dict[str, float | None]:
    """How far the streaming step and the teacher-forced forward differ on the same tokens."""
    a, b = decode[mask], forced[mask]
    difference = np.abs(a - b)
    if difference.mean() > AGREEMENT_ALARM:
        logger.warning(
            "decode-time and teacher-forced log-probs differ by %.3g nats on average, above %.3g: "
            "updates start from another policy than the one that spoke; try --precision f32",
            difference.mean(),
            AGREEMENT_ALARM,
        )
    p, q = np.exp(a), np.exp(b)
    defined = p.std() > 0 and q.std() > 0
    return {
        "sampler_trainer/logp_diff_mean": float(difference.mean()),
        "sampler_trainer/logp_diff_max": float(difference.max()),
        "sampler_trainer/probs_pearson_corr": float(np.corrcoef(p, q)[0, 1]) if defined else None,
    }


def progress_line(metrics: Mapping[str, float | None]) -> str:
    """The few numbers worth a line of log."""
    shown = [name for name in metrics if name.startswith("rewards/")] + ["kl", "grad_norm"]
    text = ", ".join(
        f"{name} {value:.4g}" for name in shown if (value := metrics[name]) is not None
    )
    return f"{text}, {metrics['rollout_frames_per_s']:.0f} frames/s"
