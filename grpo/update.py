"""One optimizer update, written once as a program for one device.

Each device differentiates the *sum* of its own losses; gradients and counts are added over the axis
and divided once. So the result is the gradient of the global mean whatever each device holds, and
no collective is differentiated (its derivative is another one under every mapping).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from grpo.config import OptimizerConfig
from grpo.loss import LossSum
from grpo.mesh import AXIS
from grpo.trainable import decays

LossFunction = Callable[[Any, Any, Any], LossSum]  # (trainable, constants, batch)


class TrainState(NamedTuple):
    """What an update changes. The same on every device."""

    trainable: Any  # float32 master weights
    opt_state: Any
    step: Array  # [] int32: updates done


def make_optimizer(
    config: OptimizerConfig, total_updates: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Clip by global norm, AdamW, cosine from `learning_rate` to 0 over `total_updates`."""
    schedule = optax.cosine_decay_schedule(config.learning_rate, total_updates)
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule,
            b1=config.beta1,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=decays,
        ),
    )
    return optimizer, schedule


def init_train_state(trainable: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """Float32 master copy of the trainable parameters with a fresh optimizer."""
    # Always a copy: the state is donated to the updates, and the base model lives on as reference.
    master = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), trainable)
    return TrainState(master, optimizer.init(master), jnp.zeros((), jnp.int32))


def mean_gradient(
    loss_function: LossFunction, trainable: Any, constants: Any, batch: Any
) -> tuple[Any, dict[str, Array]]:
    """Gradient and metrics of the mean loss over all devices, inside a program with axis `AXIS`."""

    def local_sum(trainable: Any) -> tuple[Array, LossSum]:
        loss = loss_function(trainable, constants, batch)
        return loss.sum, loss

    (_, loss), gradient = jax.value_and_grad(local_sum, has_aux=True)(trainable)
    count = jnp.maximum(jax.lax.psum(loss.count, AXIS), 1.0)
    gradient = jax.tree.map(lambda leaf: jax.lax.psum(leaf, AXIS) / count, gradient)
    return gradient, {"loss": jax.lax.psum(loss.sum, AXIS) / count, **reduce_metrics(loss)}


def reduce_metrics(loss: LossSum) -> dict[str, Array]:
    """Means of the metrics over all devices, and extremes of the extremes."""
    reduced = {}
    for name, pair in loss.metrics.items():
        total, count = jax.lax.psum(pair, AXIS)
        reduced[name] = total / jnp.maximum(count, 1.0)
    for name, value in loss.extremes.items():
        reduce = jax.lax.pmax if name.endswith("/max") else jax.lax.pmin
        reduced[name] = reduce(value, AXIS)
    return reduced


def make_update(
    loss_function: LossFunction, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Array]]]:
    """The per-device update: (state, constants, batch) -> (state, metrics).

    Map it with `in_axes=(None, None, 0)`, `out_axes=None` and donate the state.
    """

    def update(
        state: TrainState, constants: Any, batch: Any
    ) -> tuple[TrainState, dict[str, Array]]:
        gradient, metrics = mean_gradient(loss_function, state.trainable, constants, batch)
        metrics["grad_norm"] = optax.tree.norm(gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        return TrainState(trainable, opt_state, state.step + 1), metrics

    return update
