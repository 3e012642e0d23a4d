"""The compiled programs of a run: what each does on one device, and what is split or shared."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax import Array

from grpo.adapters import is_trained
from grpo.config import GRPOConfig
from grpo.layout import Layout, make_layout
from grpo.mesh import Mesh
from grpo.policy import (
    Constants,
    action_space,
    bf16_visible_change,
    make_logprobs,
    make_sync,
    text_loss,
    training_form,
)
from grpo.rollout import Trajectory, rollout, sampling_of
from grpo.rounding import make_rounder
from grpo.score import hear
from grpo.trainable import merge, partition
from grpo.update import TrainState, init_train_state, make_optimizer, make_update, state_specs
from helium_jax import Moshi, stack_layers
from layers_jax import split
from layers_jax.functional import Params
from mimi_jax import Mimi


class Programs(NamedTuple):
    """Axis D is over the devices of this process; arguments without it are the whole run's."""

    base: Callable[[Params], tuple[Params, Constants]]  # loaded params -> (trainable, constants)
    init: Callable[..., Any]  # trainable -> TrainState
    sync: Callable[..., Any]  # TrainState, frozen -> decoding parameters, on every device
    rollout: Callable[..., Any]  # params, mimi, pcm[D,S], frames[D], ids[D,G] -> Trajectory,
    #   streams[D,G,K,T]
    hear: Callable[..., Any]  # vad, pcm[D,G,S] -> speech probabilities [D,G,F]
    logprobs: Callable[..., Any]  # TrainState, frozen, streams[D,N,K,T] -> [D,N,T] of actions, of
    #   text tokens
    update: Callable[..., Any]  # TrainState (donated), Constants, Minibatch[D,...] -> TrainState,
    #   metrics
    visible_change: Callable[..., Any]  # master weights, reference -> share
    learning_rate: optax.Schedule  # of the updates done


def make_programs(config: GRPOConfig, mesh: Mesh, lm: Moshi, mimi: Mimi) -> Programs:
    """Define every program of a run; each is compiled at its first call, once per frame bucket.

    Raises:
        ValueError: the devices do not divide the model's matrices (mapping `shard_map`).
    """
    temperature = config.sampling.text_temperature
    training_lm = training_form(lm)
    parts = make_parts(config, training_lm, mesh)
    optimizer, schedule = make_optimizer(config.optimizer, config.total_updates)
    states = state_specs(parts.trained, parts.shapes, optimizer)
    rounder = make_rounder(parts.trained, lm.precision.params, config.weight_rounding, config.seed)
    logprobs = make_logprobs(
        training_lm, parts.text, temperature, action_space(config.loss, lm.config)
    )
    synced = make_sync(parts.text)
    frozen_specs = parts.constants.frozen

    def old_logprobs(state: TrainState, frozen: Params, streams: Array) -> tuple[Array, Array]:
        return logprobs(rounder(state.trainable, state.step), frozen, streams)

    def sync_text(state: TrainState, frozen: Params) -> Params:
        return synced(merge(rounder(state.trainable, state.step), frozen))

    sync = mesh.map(sync_text, in_axes=(states, frozen_specs), out_axes=None)

    return Programs(
        base=_make_base(config, mesh, parts),
        init=mesh.jit(lambda trainable: init_train_state(trainable, optimizer), states),
        sync=sync,
        rollout=mesh.map(
            _make_rollout(config, lm, mimi), in_axes=(None, None, 0, 0, 0), out_axes=0
        ),
        hear=mesh.map(hear, in_axes=(None, 0), out_axes=0),
        logprobs=mesh.map(old_logprobs, in_axes=(states, frozen_specs, 0), out_axes=0),
        update=mesh.map(
            make_update(
                text_loss(training_lm, parts.text, config.loss, temperature),
                optimizer,
                parts.trained,
                rounder,
                config.optimizer.clip_norm,
            ),
            in_axes=(states, parts.constants, 0),
            out_axes=(states, None),
            donate=(0,),
        ),
        visible_change=mesh.jit(bf16_visible_change),
        learning_rate=schedule,
    )


class Parts(NamedTuple):
    """The model's parameters as a run divides them: what the text reads, what of it is trained."""

    text: Layout  # of everything that the text reads
    trained: Layout
    shapes: Params  # of what is trained
    constants: Constants  # of `PartitionSpec`


def make_parts(config: GRPOConfig, training_lm: Moshi, mesh: Mesh) -> Parts:
    """Divide a model's parameters.

    Args:
        config: of the run.
        training_lm: layers stacked.
        mesh: of the run.

    Raises:
        ValueError: the devices do not divide a matrix.
    """
    shapes = split(training_lm)[1]
    reached, rest = partition(shapes)
    text = make_layout(reached, mesh)
    cuts = {**text.cuts, **jax.tree.map(lambda _: -1, rest)}
    trained_cuts, frozen_cuts = partition(cuts, wanted_of(config))
    trained = Layout(trained_cuts, mesh)
    reference = trained.specs if config.lora.rank is None else {}
    return Parts(
        text=text,
        trained=trained,
        shapes=partition(shapes, wanted_of(config))[0],
        constants=Constants(Layout(frozen_cuts, mesh).specs, reference),
    )


def wanted_of(config: GRPOConfig) -> Callable[[tuple[str, ...]], bool] | None:
    """Which of the leaves that get gradient are trained."""
    if config.lora.rank is None:
        return None
    return lambda path: is_trained(config.lora, path)


def _make_base(
    config: GRPOConfig, mesh: Mesh, parts: Parts
) -> Callable[[Params], tuple[Params, Constants]]:
    def base(params: Params) -> tuple[Params, Constants]:
        reached, rest = partition(params)
        stacked = mesh.jit(stack_layers, parts.text.specs)(reached)
        trainable, frozen = partition({**stacked, **rest}, wanted_of(config))
        reference = trainable if config.lora.rank is None else {}
        return trainable, Constants({**frozen, **mesh.put(rest)}, reference)

    return base


def _make_rollout(config: GRPOConfig, lm: Moshi, mimi: Mimi) -> Callable[..., Any]:
    sampling = sampling_of(config.sampling)

    def roll_out(
        params: Params, mimi_params: Params, pcm: Array, num_frames: Array, row_ids: Array
    ) -> tuple[Trajectory, Array]:
        trajectory = rollout(
            lm,
            mimi,
            params,
            mimi_params,
            pcm,
            num_frames,
            row_ids,
            sampling=sampling,
            seed=config.seed,
        )
        return trajectory, trajectory.streams()

    return roll_out
