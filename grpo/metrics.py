"""What an epoch says about itself: rewards, and whether rollouts and updates run the same model."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool, Float

from grpo.score import Rewards
from rewards import rewards_for
from rewards.judge import JUDGE_AXES, JUDGE_REWARD

logger = logging.getLogger("grpo")

AGREEMENT_ALARM = 0.01
"""Mean difference of decode-time and teacher-forced log-probs, in nats, that is worth a warning."""


def every_process(*rows: Any) -> tuple[np.ndarray, ...]:
    """Host arrays [N, ...] of this process with those of the others behind or before them.

    Arrays that are padded to different lengths on different processes are an error of the caller.
    """
    if jax.process_count() == 1:
        return tuple(np.asarray(part) for part in rows)
    return tuple(multihost_utils.process_allgather(np.asarray(part), tiled=True) for part in rows)


def reward_metrics(
    axes: Sequence[str],
    drawn_axes: Sequence[str],
    rewards: Sequence[Rewards],
    advantages: Float[np.ndarray, "N G"],
    *,
    judged: bool = False,
) -> dict[str, float | None]:
    """Means of every reward over the groups of its axis, and what share of it can be learned from.

    Args:
        axes: of the run; None stands where the epoch drew no group of one.
        drawn_axes: the axis of each group of this process.
        rewards: of each group.
        advantages: of each group.
        judged: whether the run has a judge.
    """
    names = [(axis, reward.name) for axis in axes for reward in rewards_for(axis)]
    names += [(axis, JUDGE_REWARD) for axis in axes if judged and axis in JUDGE_AXES]
    nothing = np.full(advantages.shape[1], np.nan)
    table = np.array(
        [
            [group.get(name, nothing) if drawn == axis else nothing for axis, name in names]
            for drawn, group in zip(drawn_axes, rewards, strict=True)
        ]
    )  # [N, R, G]
    drawn = np.array([axes.index(axis) for axis in drawn_axes])
    table, drawn, advantages = every_process(table, drawn, advantages)
    silent = np.all(advantages == 0, axis=1)
    valid = ~np.isnan(table)
    metrics: dict[str, float | None] = {
        "advantage/nonzero_frac": float((advantages != 0).mean()),
        "rewards/valid_frac": float(valid.any(axis=1).mean()),
    }
    for number, axis in enumerate(axes):
        of_axis = drawn == number
        share = silent[of_axis].mean() if of_axis.any() else None
        metrics[f"advantage/zero_variance/{axis}"] = None if share is None else float(share)
    for column, (axis, name) in enumerate(names):
        values = table[:, column][valid[:, column]]
        metrics[f"rewards/{axis}/{name}"] = float(values.mean()) if values.size else None
    return metrics


def agreement(
    decode: Float[np.ndarray, "N G T"],
    forced: Float[np.ndarray, "N G T"],
    mask: Bool[np.ndarray, "N T"],
) -> dict[str, float | None]:
    """How far the streaming step and the teacher-forced forward differ on the same tokens."""
    decode, forced, mask = every_process(decode, forced, mask)
    counted = np.broadcast_to(mask[:, None], decode.shape)
    a, b = decode[counted], forced[counted]
    difference = np.abs(a - b)
    if not difference.mean() <= AGREEMENT_ALARM:
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
    rewards = [name for name in metrics if name.count("/") == 2 and name.startswith("rewards/")]
    shown = [*rewards, "kl", "grad_norm"]
    text = ", ".join(
        f"{name} {value:.4g}" for name in shown if (value := metrics[name]) is not None
    )
    return f"{text}, {metrics['rollout_frames_per_s']:.0f} frames/s"
