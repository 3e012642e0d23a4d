"""The language model as a policy over text tokens: teacher-forced log-probs, loss, weight sync.

Three forms of the same weights: the float32 master copy with stacked layers that updates change,
the stacked base model that the KL anchors to, and the copy with listed layers, in the format of the
model, that rollouts decode with; it is made anew once per epoch. The first two may lie in blocks
over the devices; the third is whole on each.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from grpo.actions import ActionSpace, SpeakSilence, TextTokens
from grpo.config import LossConfig
from grpo.layout import Layout, exchange_columns
from grpo.loss import LossSum, action_logprobs, policy_loss
from grpo.trainable import merge
from helium_jax import Moshi, MoshiConfig, delayed_grid
from layers_jax import bind, split_adapters
from layers_jax.functional import Params, abstract


class Constants(NamedTuple):
    """What every update reads and none changes."""

    frozen: Params  # what is not trained
    reference: Params  # what is, as it was in the base model


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


def without_adapters(lm: Moshi) -> Moshi:
    """The stacked definition of the base of `lm`."""
    if lm.config.lora is None:
        return lm
    config = replace(lm.config, lora=None)
    return abstract(lambda: Moshi(config, precision=lm.precision, stacked=True, rngs=nnx.Rngs(0)))


def action_space(loss: LossConfig, config: MoshiConfig) -> ActionSpace:
    """What the configured policy decides."""
    if loss.action_space == "text_tokens":
        return TextTokens()
    form = "sum" if loss.action_space == "speak_silence_sum" else "logsumexp"
    return SpeakSilence(config.existing_text_padding_id, form)


def text_logits(
    lm: Moshi, params: Params, layout: Layout, streams: Int[Array, "B K T"]
) -> Float[Array, "B T V"]:
    """`helium_jax.forward_text` of a model whose parameters may lie in blocks (mapped program).

    Args: as `temporal_hidden`; the layout is of the part of `params` that the text reads.
    """
    whole = layout.gather(params["text_head"], layout.cuts["text_head"])
    hidden = temporal_hidden(lm, params, layout, streams)
    return bind(lm, {**params, "text_head": whole}).text_logits(hidden)


def temporal_hidden(
    lm: Moshi, params: Params, layout: Layout, streams: Int[Array, "B K T"]
) -> Float[Array, "B T D"]:
    """Normed temporal output of a model whose parameters may lie in blocks (mapped program).

    Each layer is gathered inside its rematerialised block, so one is whole at a time. Embedding
    tables are cut by columns and never gathered: every device looks up its columns for everyone's
    tokens, and the columns are exchanged.

    Args:
        lm: the model's definition (static), stacked.
        params: all its parameters; blocks where `layout` cuts.
        layout: of the part of `params` that is read.
        streams: this device's rollouts.
    """
    cuts = layout.cuts
    whole = layout.gather(params["out_norm"], cuts["out_norm"])
    model = bind(lm, {**params, "out_norm": whole})
    fed, _ = delayed_grid(lm.config, streams)
    tables = {cuts["audio_embedding"]["table"], cuts["text_embedding"]["table"]}
    if tables == {-1}:
        x = model.embed(fed)
    else:
        axes = layout.mesh.axes
        everyone = jax.lax.all_gather(fed, axes, axis=0, tiled=True)
        columns = model.embed(everyone)
        x = exchange_columns(columns.reshape(-1, *fed.shape[:1], *columns.shape[1:]), axes)

    def layer_params(layer: Params) -> Params:
        return layout.gather(layer, cuts["temporal"]["layers"], sliced=True)

    return model.out_norm(model.temporal(x, layer_params))


def text_loss(
    lm: Moshi, layout: Layout, loss: LossConfig, temperature: float
) -> Callable[[Params, Constants, Minibatch], LossSum]:
    """The loss function of `make_update`: forward of policy and base model, then the objective.

    The base model has no adapters: where those are what is trained, leaving them out gives it.
    """
    space = action_space(loss, lm.config)
    base_lm, base_layout = without_adapters(lm), Layout(split_adapters(layout.cuts)[1], layout.mesh)

    def function(trainable: Params, constants: Constants, batch: Minibatch) -> LossSum:
        # The forward reads the past only: masked frames need no care here.
        policy = text_logits(lm, merge(trainable, constants.frozen), layout, batch.streams)
        _, params = split_adapters(merge(constants.reference, constants.frozen))
        base = text_logits(base_lm, params, base_layout, batch.streams)
        return policy_loss(
            policy,
            jax.lax.stop_gradient(base),
            batch.streams[:, 0],
            batch.old_logprob,
            batch.advantage,
            batch.mask,
            temperature=temperature,
            epsilon=loss.epsilon,
            epsilon_high=loss.epsilon_high,
            beta=loss.beta,
            space=space,
            aggregate=loss.aggregate,
        )

    return function


def make_logprobs(
    lm: Moshi, layout: Layout, temperature: float, space: ActionSpace
) -> Callable[[Params, Params, Array], tuple[Array, Array]]:
    """The per-device program (weights, frozen, streams [N, K, T]) -> log-probs [N, T], twice.

    The first are of the actions, the second of the text tokens: the same if actions are tokens. One
    rollout at a time, as in an update: memory stays that of one, and the sums are taken in the same
    order, which keeps the ratio of the first update at 1.
    """

    def program(
        weights: Params, frozen: Params, streams: Int[Array, "N K T"]
    ) -> tuple[Float[Array, "N T"], Float[Array, "N T"]]:
        params = merge(weights, frozen)

        def one(rollout: Int[Array, "K T"]) -> tuple[Float[Array, " T"], Float[Array, " T"]]:
            logits = text_logits(lm, params, layout, rollout[None])
            tokens = jnp.maximum(rollout[None, 0], 0)
            return (
                action_logprobs(logits, tokens, temperature, space)[0],
                action_logprobs(logits, tokens, temperature)[0],
            )

        return jax.lax.map(one, streams)

    return program


def make_sync(layout: Layout) -> Callable[[Params], Params]:
    """The per-device program (parameters, layers stacked) -> as rollouts want them.

    Layers listed, whole on every device. They are gathered one by one: at no time does a second
    copy of all of them exist.
    """

    def program(params: Params) -> Params:
        layers, cuts = params["temporal"]["layers"], layout.cuts["temporal"]["layers"]
        count = jax.tree.leaves(layers)[0].shape[0]

        def one(index: int) -> Params:
            layer = jax.tree.map(lambda leaf: leaf[index], layers)
            return layout.gather(layer, cuts, sliced=True)

        rest = {
            name: layout.gather(value, layout.cuts[name])
            for name, value in params.items()
            if name in layout.cuts and name != "temporal"
        }
        return {**rest, "temporal": {"layers": [one(index) for index in range(count)]}}

    return program


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
