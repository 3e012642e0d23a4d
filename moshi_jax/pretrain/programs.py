"""The compiled programs of a supervised run, and the loss that they share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Int

from grpo.adapters import is_trained
from grpo.layout import Layout, make_layout
from grpo.loss import LossSum
from grpo.mesh import Mesh
from grpo.policy import temporal_hidden, training_form
from grpo.rounding import make_rounder
from grpo.trainable import merge, partition
from grpo.update import (
    LossFunction,
    init_train_state,
    make_optimizer,
    make_update,
    state_specs,
)
from helium_jax import Moshi, delayed_grid, logits_of_hidden, stack_layers, token_loss
from helium_jax.loss import WeightedSum
from layers_jax import bind, split
from layers_jax.functional import Params
from moshi_jax.pretrain.config import PretrainConfig
from moshi_jax.pretrain.user_head import user_loss

__all__ = ["Programs", "make_programs", "supervised_loss"]

WHOLE = ("text_head", "depth", "extra_heads")
"""Entries that are gathered whole before they are used, where they lie in blocks."""


class Programs(NamedTuple):
    """Codes are [D, B, K, T], D over the devices of this process."""

    base: Callable[[Params], tuple[Params, Params]]  # loaded params -> (trainable, frozen)
    init: Callable[..., Any]  # trainable -> TrainState
    update: Callable[..., Any]  # TrainState (donated), frozen, codes -> TrainState, metrics
    evaluate: Callable[..., Any]  # TrainState, frozen, codes -> {name: (sum, weight)} of all
    learning_rate: optax.Schedule  # of the updates done


def make_programs(config: PretrainConfig, mesh: Mesh, lm: Moshi) -> Programs:
    """Define every program of a run; each is compiled at its first call.

    Args:
        config: of the run.
        mesh: its devices.
        lm: with adapters and user head, if the run has them; layers listed.

    Raises:
        ValueError: the model has conditions, or the devices do not divide its matrices (mapping
            `shard_map`).
    """
    if lm.config.conditioners:
        raise ValueError(
            f"the model has {len(lm.config.conditioners)} condition(s), expected none: recordings "
            "do not say their values"
        )
    training_lm = training_form(lm)
    shapes = split(training_lm)[1]
    layout = make_layout(shapes, mesh)
    wanted = _wanted(config)
    trained_shapes, _ = partition(shapes, wanted, tuple(shapes))
    trained_cuts, frozen_cuts = partition(layout.cuts, wanted, tuple(shapes))
    trained, frozen = Layout(trained_cuts, mesh), Layout(frozen_cuts, mesh).specs
    optimizer, schedule = make_optimizer(config.optimizer, config.steps)
    states = state_specs(trained, trained_shapes, optimizer)
    rounder = make_rounder(trained, lm.precision.params, config.weight_rounding, config.seed)
    loss = supervised_loss(training_lm, layout, config)

    def base(params: Params) -> tuple[Params, Params]:
        stacked = mesh.jit(stack_layers, layout.specs)(params)
        return partition(stacked, wanted, tuple(shapes))

    def evaluate(state: Any, frozen: Params, codes: Array) -> dict[str, Any]:
        sums = loss(rounder(state.trainable, state.step), frozen, codes).metrics
        return jax.lax.psum(sums, mesh.axes)

    return Programs(
        base=base,
        init=mesh.jit(lambda trainable: init_train_state(trainable, optimizer), states),
        update=mesh.map(
            make_update(loss, optimizer, trained, rounder, config.optimizer.clip_norm),
            in_axes=(states, frozen, 0),
            out_axes=(states, None),
            donate=(0,),
        ),
        evaluate=mesh.map(evaluate, in_axes=(states, frozen, 0), out_axes=None),
        learning_rate=schedule,
    )


def supervised_loss(lm: Moshi, layout: Layout, config: PretrainConfig) -> LossFunction:
    """The loss of moshi-finetune as a sum over devices (see `helium_jax.token_loss`).

    Text and audio are weighted means over the tokens of *all* devices, whatever each holds. What
    they are divided by depends on the data alone, so no sum over devices is differentiated.

    Args:
        lm: layers stacked.
        layout: of all its parameters.
        config: weights.
    """

    def function(trainable: Params, frozen: Params, codes: Int[Array, "B K T"]) -> LossSum:
        params = merge(trainable, frozen)
        hidden = temporal_hidden(lm, params, layout, codes)
        whole = {
            name: layout.gather(params[name], layout.cuts[name]) for name in WHOLE if name in params
        }
        model = bind(lm, {**params, **whole})
        _, targets = delayed_grid(lm.config, codes)
        logits = logits_of_hidden(model, hidden, targets, codes)
        terms = token_loss(
            lm.config,
            logits,
            codes,
            first_codebook_weight=config.first_codebook_weight,
            text_padding_weight=config.text_padding_weight,
        )
        words = token_loss(lm.config, logits, codes, text_padding_weight=0.0).text
        parts = {"text": (1.0, terms.text), "audio": (1.0, terms.audio)}
        if config.user_weight:
            user = user_loss(model, hidden, targets)
            parts["user"] = (config.user_weight, user)
        total = jnp.zeros(())
        for weight, part in parts.values():
            everyone = jax.lax.psum(part.weight, layout.mesh.axes)
            total += weight * part.total / jnp.maximum(everyone, jnp.finfo(jnp.float32).tiny)
        metrics = {f"nats/{name}": part for name, (_, part) in parts.items()}
        metrics["nats/words"] = words
        for number in range(lm.config.dep_q):
            metrics[f"nats/codebook_{number}"] = WeightedSum(
                *(leaf[number] for leaf in terms.per_codebook)
            )
        pairs = {name: tuple(pair) for name, pair in metrics.items()}
        share = jnp.asarray(1.0 / layout.mesh.size)
        return LossSum(total, share, jax.lax.stop_gradient(pairs), {})

    return function


def _wanted(config: PretrainConfig) -> Callable[[tuple[str, ...]], bool] | None:
    """Which leaves are trained: all, or adapters and the user head."""
    if config.lora.rank is None:
        return None
    return lambda path: (
        (path[0] == "extra_heads" and path[-1] == "kernel" and config.user_weight > 0)
        or is_trained(config.lora, path)
    )
