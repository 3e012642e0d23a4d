"""The objective as pure functions of text logits: clipped surrogate minus beta times the exact KL.

    L_g = -(1/N) sum_n [ min(rho_n A, clip(rho_n, 1-eps, 1+eps_high) A) - beta KL_n ]

over the N frames of the segment. The ratio rho uses log-probs at the sampling temperature (so it is
the true importance weight); the KL sums over all actions (the whole vocabulary, if actions are
tokens) at temperature 1 against the frozen base model (arXiv 2606.11167). Losses and metrics are
(sum, count) pairs: a mean over devices is one division after both are summed, whatever each holds.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from grpo.actions import ActionSpace, TextTokens

Pair = tuple[Array, Array]  # (sum, count), scalars
Aggregate = Literal["rollout", "frame"]


class LossSum(NamedTuple):
    """A loss that can still be added across devices."""

    sum: Array  # [] float32
    count: Array  # [] float32: what the sum must be divided by
    metrics: dict[str, Pair]
    extremes: dict[str, Array]  # scalars, names end in /max or /min


def action_logprobs(
    logits: Float[Array, "B T V"],
    tokens: Int[Array, "B T"],
    temperature: float,
    space: ActionSpace = TextTokens(),  # noqa: B008 (frozen)
) -> Float[Array, "B T"]:
    """Log-probability of the action that each token is, at a temperature, in float32."""
    table = space.log_probs(logits, temperature)
    return jnp.take_along_axis(table, space.of(tokens)[..., None], axis=-1)[..., 0]


def exact_kl(
    logits: Float[Array, "B T V"],
    reference: Float[Array, "B T V"],
    space: ActionSpace = TextTokens(),  # noqa: B008 (frozen)
) -> Float[Array, "B T"]:
    """KL(policy || reference) over all actions at each position, in nats, float32."""
    log_p, log_q = space.log_probs(logits, 1.0), space.log_probs(reference, 1.0)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def policy_loss(
    logits: Float[Array, "B T V"],
    reference: Float[Array, "B T V"],
    tokens: Int[Array, "B T"],
    old_logprob: Float[Array, "B T"],
    advantage: Float[Array, " B"],
    mask: Bool[Array, "B T"],
    *,
    temperature: float,
    epsilon: float,
    epsilon_high: float | None = None,
    beta: float,
    space: ActionSpace = TextTokens(),  # noqa: B008 (frozen)
    aggregate: Aggregate = "rollout",
) -> LossSum:
    """Sum over rollouts of their frame-averaged loss; counted are rollouts that have a frame.

    Args:
        logits: text logits of the policy, teacher-forced on the rollout.
        reference: text logits of the frozen base model on the same tokens.
        tokens: sampled text tokens; any value where the mask is False.
        old_logprob: log-probs of the tokens at `temperature` under the policy held fixed for the
            epoch.
        advantage: one number a rollout.
        mask: frames of the segment. Others carry neither loss nor gradient.
        temperature: of the log-probs in the ratio; the one the tokens were sampled at.
        epsilon: how far below 1 the clip of the ratio reaches, and how far above it.
        epsilon_high: how far above, if not the same.
        beta: weight of the KL.
        space: what the actions are.
        aggregate: "rollout" averages over the frames of a rollout, then over rollouts; "frame"
            averages over all frames alike, so long segments weigh more.
    """
    tokens = jnp.where(mask, tokens, 0)
    # Masked before exp: an overflow outside the mask would turn 0 * inf into NaN gradients.
    new_logprob = action_logprobs(logits, tokens, temperature, space)
    delta = jnp.where(mask, new_logprob - old_logprob, 0.0)
    ratio = jnp.exp(delta)
    above = epsilon if epsilon_high is None else epsilon_high
    clipped = jnp.clip(ratio, 1.0 - epsilon, 1.0 + above)
    gain = advantage[:, None]
    surrogate = jnp.minimum(ratio * gain, clipped * gain)
    kl = jnp.where(mask, exact_kl(logits, reference, space), 0.0)

    frames = mask.sum(axis=1).astype(jnp.float32)
    per_frame = jnp.where(mask, beta * kl - surrogate, 0.0)
    total = frames.sum()
    if aggregate == "rollout":
        summed = (per_frame.sum(axis=1) / jnp.maximum(frames, 1.0)).sum()
        count = (frames > 0).sum().astype(jnp.float32)
    else:
        summed, count = per_frame.sum(), total

    cut = jnp.where(mask, ratio * gain > clipped * gain, False)
    entropy = jnp.where(mask, _entropy(logits, space), 0.0)
    metrics = {
        "kl": (kl.sum(), total),
        "entropy": (entropy.sum(), total),
        "ppo_kl": (-delta.sum(), total),
        "pg_clipfrac": (cut.sum().astype(jnp.float32), total),
        "is_ratio/mean": (jnp.where(mask, ratio, 0.0).sum(), total),
    }
    extremes = {
        "is_ratio/max": jnp.where(mask, ratio, -jnp.inf).max(),
        "is_ratio/min": jnp.where(mask, ratio, jnp.inf).min(),
    }
    return LossSum(summed, count, *jax.lax.stop_gradient((metrics, extremes)))


def _entropy(logits: Float[Array, "B T V"], space: ActionSpace) -> Float[Array, "B T"]:
    log_p = space.log_probs(logits, 1.0)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
