"""Policies compared on the same segments with the same random draws, under several conditions.

Every policy rolls out the same groups; a rollout's noise comes from (seed, row, frame, stream), so
two policies differ by their parameters and by nothing else.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from convert import load_mimi, load_moshi
from grpo.collect import Models, ScoringPool, collect
from grpo.config import GRPOConfig
from grpo.data import group_batches
from grpo.mesh import make_mesh
from grpo.perturb import PerturbConfig, codec_trip
from grpo.policy import Constants
from grpo.programs import make_programs
from grpo.train import data_config
from grpo.trainable import Params
from layers_jax import Precision
from rewards import load_vad, rewards_for


def evaluate_conditions(
    config: GRPOConfig,
    policies: Mapping[str, Params | None],
    conditions: Mapping[str, PerturbConfig],
    *,
    groups: int,
) -> dict[str, dict[str, dict[str, float]]]:
    """Mean of every reward for each policy under each condition.

    Args:
        config: of the run; its segments are drawn anew with the seed after the run's.
        policies: parameters by name, layers listed; None stands for those of `config.checkpoint`.
        conditions: what is done to the user's audio, by name (`grpo.perturb.robustness_grid`).
        groups: segments drawn, a multiple of the devices, each rolled out `num_generations` times.

    Returns:
        Condition -> policy name -> "axis/reward" -> mean over the rollouts where the reward is not
        missing.

    Raises:
        ValueError: as `grpo.train`.
    """
    config = replace(config, seed=config.seed + 1)
    mesh = make_mesh(config.devices)
    precision = Precision.f32() if config.precision == "f32" else Precision.bf16()
    lm, stored = load_moshi(config.checkpoint, precision=precision)
    mimi, mimi_params = load_mimi(config.checkpoint)
    programs = make_programs(config, mesh, lm, mimi)
    nothing = Constants({}, {})  # that is for updates
    models = Models(nothing, mesh.put(mimi_params), mesh.put(load_vad()))
    frame_s = mimi.config.frame_samples / mimi.config.sample_rate

    codec, data = codec_trip(mimi, mimi_params), data_config(config)
    batches = {
        condition: next(
            group_batches(
                config.segments, replace(data, perturb=perturb), groups=groups, codec=codec
            )
        )
        for condition, perturb in conditions.items()
    }

    results: dict[str, dict[str, dict[str, float]]] = {condition: {} for condition in conditions}
    for name, params in policies.items():
        weights = mesh.put(stored if params is None else params)
        for condition, batch in batches.items():
            with ScoringPool(config.scoring_threads) as pool:
                rollouts = collect(config, mesh, programs, models, pool, weights, batch, frame_s)
                scored = rollouts.wait()
            results[condition][name] = {
                f"{axis}/{reward.name}": float(values.mean())
                for axis in config.axes
                for reward in rewards_for(axis)
                if (values := _values(scored, batch.axis, axis, reward.name)).size
            }
    return results


def _values(scored: list, drawn: list[str], axis: str, reward: str) -> np.ndarray:
    """The values of a reward over the groups of its axis, those that are not missing."""
    parts = [group[reward] for group, name in zip(scored, drawn, strict=True) if name == axis]
    values = np.concatenate([*parts, np.empty(0)])
    return values[~np.isnan(values)]
