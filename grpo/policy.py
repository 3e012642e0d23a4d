"""The language model as a policy over text tokens: teacher-forced log-probs, loss, weight sync.

Three forms of the same weights: the float32 master copy with stacked layers that updates change,
the stacked base model that the KL anchors to, and the copy with listed layers, in the format of the
model, that rollouts decode with; it is made anew once per epoch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from grpo.config import LossConfig
from grpo.loss import LossSum, policy_loss, token_logprobs
from grpo.trainable import merge
from helium_jax import Moshi, forward_text, unstack_layers
from layers_jax import Precision
from layers_jax.functional import Params, abstract


class Constants(NamedTuple):
    """What every update reads and none changes."""

    frozen: Params  # depth transformer: read by rollouts only, but part of the model's tree
    reference: Params  # trainable part of the base model, layers stacked


class Minibatch(NamedTuple):
    """B rollouts as one update sees them; arrays of the host or of the device."""

    streams: Any  # [B, K, T] int32: text, agent, user
    old_logprob: Any  # [B, T] f32 of the text under the policy of the epoch's start
    advantage: Any  # [B] f32
    mask: Any  # [B, T] bool: frames of the segment


def training_form(lm: Moshi) -> Moshi:
    """The definition of `lm` with its temporal layers stacked (scan and remat)."""
    return abstract(
        lambda: Moshi(lm.config, precision=lm.precision, stacked=True, rngs=nnx.Rngs(0))
    )


def text_loss(
    lm: Moshi, loss: LossConfig, temperature: float
) -> Callable[[Params, Constants, Minibatch], LossSum]:
    """The loss function of `make_update`: forward of policy and base model, then the objective."""

    def function(trainable: Params, constants: Constants, batch: Minibatch) -> LossSum:
        # The forward reads the past only: masked frames need no care here.
        policy = forward_text(lm, merge(trainable, constants.frozen), batch.streams)
        base = forward_text(lm, merge(constants.reference, constants.frozen), batch.streams)
        return policy_loss(
            policy,
            jax.lax.stop_gradient(base),
            batch.streams[:, 0],
            batch.old_logprob,
            batch.advantage,
            batch.mask,
            temperature=temperature,
            epsilon=loss.epsilon,
            beta=loss.beta,
        )

    return function


def make_logprobs(lm: Moshi, temperature: float) -> Callable[[Params, Params, Array], Array]:
    """The per-device program (trainable, frozen, streams [N, K, T]) -> log-probs [N, T].

    One rollout at a time, as in an update: memory stays that of one, and the sums are taken in the
    same order, which keeps the ratio of the first update at 1.
    """

    def program(
        trainable: Params, frozen: Params, streams: Int[Array, "N K T"]
    ) -> Float[Array, "N T"]:
        params = merge(trainable, frozen)

        def one(rollout: Int[Array, "K T"]) -> Float[Array, " T"]:
            logits = forward_text(lm, params, rollout[None])
            return token_logprobs(logits, jnp.maximum(rollout[None, 0], 0), temperature)[0]

        return jax.lax.map(one, streams)

    return program


def decoding_weights(trainable: Params, precision: Precision) -> Params:
    """The trainable part as rollouts want it: layers listed, in the format parameters are held."""
    return jax.tree.map(lambda leaf: leaf.astype(precision.params), unstack_layers(trainable))


def bf16_visible_change(trainable: Params, reference: Params) -> Float[Array, ""]:
    """Share of weights whose bf16 rounding differs from the base model's.

    Adam steps of 2e-7 are far below half a bf16 step of a typical weight: this says how much of the
    training a bf16 forward pass, or a bf16 export, can see at all.
    """
    half = jnp.bfloat16
    changed = jax.tree.map(
        lambda new, old: jnp.sum(new.astype(half) != old.astype(half), dtype=jnp.float32),
        trainable,
        reference,
    )
    total = sum(leaf.size for leaf in jax.tree.leaves(trainable))
    return jax.tree.reduce(jnp.add, changed) / total
