"""One optimizer update, written once as a program for one device.

Each device differentiates the *sum* of its own losses; gradients and counts are added over the mesh
and divided once. So the result is the gradient of the global mean whatever each device holds, and
no sum over devices is differentiated but the gather of cut leaves, whose transpose it is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import PartitionSpec

from grpo.config import OptimizerConfig
from grpo.layout import Layout
from grpo.loss import LossSum
from grpo.rounding import Rounder
from grpo.trainable import decays

LossFunction = Callable[[Any, Any, Any], LossSum]  # (trainable weights, constants, batch)


class TrainState(NamedTuple):
    """What an update changes: the same on every device, but for the leaves that are cut."""

    trainable: Any  # float32 master weights
    opt_state: Any
    step: Array  # [] int32: updates done or skipped


def make_optimizer(
    config: OptimizerConfig, total_updates: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW, cosine from `learning_rate` to 0 over `total_updates`; elementwise, so fit for blocks.

    The clip by global norm is a part of the update: a norm needs every device's blocks.

    Raises:
        ValueError: the warm-up is not shorter than the run.
    """
    warmup, rate = config.warmup_updates, config.learning_rate
    if warmup >= total_updates:
        raise ValueError(
            f"warmup_updates is {warmup}, expected fewer than the {total_updates} updates of the "
            "run; lower it or train longer"
        )
    schedule = optax.cosine_decay_schedule(rate, total_updates - warmup)
    if warmup:
        rising = optax.linear_schedule(0.0, rate, warmup)
        schedule = optax.join_schedules([rising, schedule], [warmup])
    moments = optax.scale_by_adam(b1=config.beta1, b2=config.beta2)
    optimizer = optax.chain(
        moments if config.moments == "float32" else _held_as(moments, jnp.bfloat16),
        optax.add_decayed_weights(config.weight_decay, mask=decays),
        optax.scale_by_learning_rate(schedule),
    )
    return optimizer, schedule


def _held_as(inner: optax.GradientTransformation, dtype: Any) -> optax.GradientTransformation:
    """`inner` with the floats of its state held in `dtype` between updates."""

    def cast(tree: Any, to: Any) -> Any:
        def leaf(value: Array) -> Array:
            return value.astype(to) if jnp.issubdtype(value.dtype, jnp.floating) else value

        return jax.tree.map(leaf, tree)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = inner.update(updates, cast(state, jnp.float32), params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(lambda params: cast(inner.init(params), dtype), update)


def init_train_state(trainable: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """Float32 master copy of the trainable parameters with a fresh optimizer."""
    # Always a copy: the state is donated to the updates, and the base model lives on as reference.
    master = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), trainable)
    return TrainState(master, optimizer.init(master), jnp.zeros((), jnp.int32))


def state_specs(
    layout: Layout, trainable: Any, optimizer: optax.GradientTransformation
) -> TrainState:
    """The `PartitionSpec` of every leaf of a train state: moments lie as their weights do."""
    specs = layout.specs
    state = jax.eval_shape(lambda tree: init_train_state(tree, optimizer), trainable)
    opt_specs = optax.tree.map_params(
        optimizer.init,
        lambda _, spec: spec,
        state.opt_state,
        specs,
        transform_non_params=lambda _: PartitionSpec(),
    )
    return TrainState(specs, opt_specs, PartitionSpec())  # pyrefly: ignore[bad-argument-type]


def mean_gradient(
    loss_function: LossFunction, layout: Layout, weights: Any, constants: Any, batch: Any
) -> tuple[Any, dict[str, Array]]:
    """Gradient (float32) and metrics of the mean loss over all devices, in a mapped program.

    Args:
        loss_function: of this device's part of the batch.
        layout: of the weights.
        weights: what is differentiated, blocks where leaves are cut.
        constants: not differentiated.
        batch: this device's part.
    """

    def local_sum(weights: Any) -> tuple[Array, LossSum]:
        loss = loss_function(weights, constants, batch)
        return loss.sum, loss

    (_, loss), gradient = jax.value_and_grad(local_sum, has_aux=True)(weights)
    axes = layout.mesh.axes
    count = jnp.maximum(jax.lax.psum(loss.count, axes), 1.0)
    gradient = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gradient)
    gradient = jax.tree.map(lambda leaf: leaf / count, layout.reduce(gradient))
    return gradient, {"loss": jax.lax.psum(loss.sum, axes) / count, **reduce_metrics(loss, axes)}


def reduce_metrics(loss: LossSum, axes: tuple[str, ...]) -> dict[str, Array]:
    """Means of the metrics over all devices, and extremes of the extremes."""
    reduced = {}
    for name, pair in loss.metrics.items():
        total, count = jax.lax.psum(pair, axes)
        reduced[name] = total / jnp.maximum(count, 1.0)
    for name, value in loss.extremes.items():
        reduce = jax.lax.pmax if name.endswith("/max") else jax.lax.pmin
        reduced[name] = reduce(value, axes)
    return reduced


def make_update(
    loss_function: LossFunction,
    optimizer: optax.GradientTransformation,
    layout: Layout,
    rounder: Rounder,
    clip_norm: float,
) -> Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Array]]]:
    """The per-device update: (state, constants, batch) -> (state, metrics).

    A loss or gradient that is not finite changes nothing but the count of steps; the metric
    `update/skipped` is then 1.
    """

    def update(
        state: TrainState, constants: Any, batch: Any
    ) -> tuple[TrainState, dict[str, Array]]:
        weights = rounder(state.trainable, state.step)
        gradient, metrics = mean_gradient(loss_function, layout, weights, constants, batch)
        norm = layout.norm(gradient)
        finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
        scale = jnp.where(norm > clip_norm, clip_norm / norm, 1.0)
        gradient = jax.tree.map(lambda leaf: leaf * scale, gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        trainable, opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (trainable, opt_state),
            (state.trainable, state.opt_state),
        )
        metrics["grad_norm"] = norm
        metrics["update/skipped"] = 1.0 - finite.astype(jnp.float32)
        return TrainState(trainable, opt_state, state.step + 1), metrics

    return update
