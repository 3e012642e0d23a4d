"""The compiled programs of a run: what each does on one device, and what is split or shared."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from grpo.config import GRPOConfig
from grpo.mesh import Mesh
from grpo.policy import (
    bf16_visible_change,
    decoding_weights,
    make_logprobs,
    text_loss,
    training_form,
)
from grpo.rollout import Trajectory, rollout, sampling_of
from grpo.score import hear
from grpo.trainable import partition
from grpo.update import init_train_state, make_optimizer, make_update
from helium_jax import Moshi, stack_layers
from mimi_jax import Mimi


class Programs(NamedTuple):
    """Axis D is over devices; arguments without it are the same on every device."""

    base: Callable[..., Any]  # params, layers listed -> (trainable, layers stacked; frozen)
    init: Callable[..., Any]  # trainable -> TrainState
    sync: Callable[..., Any]  # master weights -> trainable part of the decoding weights
    rollout: Callable[..., Any]  # params, mimi, pcm[D,S], frames[D], ids[D,G] -> Trajectory,
    #   streams[D,G,K,T]
    hear: Callable[..., Any]  # vad, pcm[D,G,S] -> speech probabilities [D,G,F]
    logprobs: Callable[..., Any]  # trainable, frozen, streams[D,N,K,T] -> [D,N,T]
    update: Callable[..., Any]  # TrainState (donated), Constants, Minibatch[D,...] -> TrainState,
    #   metrics
    visible_change: Callable[..., Any]  # master weights, reference -> share
    learning_rate: optax.Schedule  # of the updates done


def make_programs(config: GRPOConfig, mesh: Mesh, lm: Moshi, mimi: Mimi) -> Programs:
    """Define every program of a run; each is compiled at its first call, once per frame bucket."""
    sampling = sampling_of(config.sampling)
    temperature = config.sampling.text_temperature
    training_lm = training_form(lm)
    optimizer, schedule = make_optimizer(config.optimizer, config.total_updates)

    def roll_out(
        params: Any, mimi_params: Any, pcm: jax.Array, num_frames: jax.Array, row_ids: jax.Array
    ) -> tuple[Trajectory, jax.Array]:
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

    return Programs(
        base=mesh.jit(lambda params: partition(stack_layers(params))),
        init=mesh.jit(lambda trainable: init_train_state(trainable, optimizer)),
        sync=mesh.jit(lambda trainable: decoding_weights(trainable, lm.precision)),
        rollout=mesh.map(roll_out, in_axes=(None, None, 0, 0, 0), out_axes=0),
        hear=mesh.map(hear, in_axes=(None, 0), out_axes=0),
        logprobs=mesh.map(
            make_logprobs(training_lm, temperature), in_axes=(None, None, 0), out_axes=0
        ),
        update=mesh.map(
            make_update(text_loss(training_lm, config.loss, temperature), optimizer),
            in_axes=(None, None, 0),
            out_axes=None,
            donate=(0,),
        ),
        visible_change=mesh.jit(bf16_visible_change),
        learning_rate=schedule,
    )
