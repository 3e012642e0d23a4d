"""Policies on held-out segments, segment by segment: what `grpo.bootstrap` compares.

Each segment is rolled out some times by every policy, with the same random draws: a rollout's noise
comes from (seed, row, frame, stream), so two policies differ by their parameters and by nothing
else.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from convert import load_mimi, load_moshi
from grpo.collect import Models, Rollouts, ScoringPool, collect
from grpo.config import GRPOConfig, LoraTraining
from grpo.data import GroupBatch, held_out_batches
from grpo.judge_gate import open_judge_gate
from grpo.layout import Layout
from grpo.loss import exact_kl
from grpo.mesh import make_mesh
from grpo.policy import Constants, text_logits, training_form
from grpo.programs import make_parts, make_programs
from grpo.samples import Sample
from grpo.train import data_config
from grpo.trainable import Params, merge
from helium_jax import Moshi
from layers_jax import Precision
from rewards import load_vad
from rewards.intervals import Interval

FIRST_INDEX = 2**20
"""Number of the first held-out group: far from those of training, so its random draws are other."""


@dataclass(frozen=True, kw_only=True)
class SegmentScore:
    """One segment under one policy.

    Attributes:
        segment_id: as in the manifest.
        axis: of the segment.
        rewards: name -> [G] a value a rollout, NaN = missing.
        kl: nats a frame from the base to the policy, mean over the frames of the segment and the
            rollouts; 0 for the base itself.
        agent: speech of the first rollout, seconds from the segment's start.
    """

    segment_id: str
    axis: str
    rewards: Mapping[str, Float[np.ndarray, " G"]]
    kl: float
    agent: tuple[Interval, ...]

    @property
    def conversation(self) -> str:
        """What it was cut out of: the unit of the bootstrap."""
        return self.segment_id.split("/")[0]


class HeldOut:
    """Held-out segments, and what rolls them out.

    Args:
        config: of the run; judge and recognizer are its own.
        segments: folder of the held-out segments.
        per_axis: segments of each axis.
        rollouts: of each segment.
        scratch: folder for what judge and recognizer keep.

    Raises:
        ValueError: as `grpo.train` and `grpo.data.held_out_batches`.
    """

    def __init__(
        self,
        config: GRPOConfig,
        segments: Path,
        *,
        per_axis: int,
        rollouts: int,
        scratch: Path,
    ) -> None:
        self._config = config = replace(
            config, num_generations=rollouts, lora=LoraTraining(), mapping="pmap", mesh_shape=None
        )
        self._mesh = mesh = make_mesh(config.devices)
        self._segments, self._per_axis, self._scratch = segments, per_axis, scratch
        precision = Precision.f32() if config.precision == "f32" else Precision.bf16()
        lm, self.base = load_moshi(config.checkpoint, precision=precision)
        mimi, mimi_params = load_mimi(config.checkpoint)
        self._programs = make_programs(config, mesh, lm, mimi)
        self._models = Models(Constants({}, {}), mesh.put(mimi_params), mesh.put(load_vad()))
        self._frame_s = mimi.config.frame_samples / mimi.config.sample_rate
        training_lm = training_form(lm)
        text = make_parts(config, training_lm, mesh).text
        self._divergence = mesh.map(
            make_divergence(training_lm, text), in_axes=(None, None, 0, 0), out_axes=0
        )

    def _batches(self) -> Iterator[GroupBatch]:
        for batch in held_out_batches(
            self._segments,
            data_config(self._config),
            per_axis=self._per_axis,
            groups=self._mesh.size,
        ):
            yield batch._replace(index=batch.index + FIRST_INDEX)

    def score(
        self,
        params: Params | None,
        *,
        told: Callable[[int, int], None] = lambda done, of: None,
    ) -> list[SegmentScore]:
        """Every segment under one policy.

        Args:
            params: of the policy, layers listed; None for the base.
            told: of how many segments are done, of how many.
        """
        scores: list[SegmentScore] = []
        total = self._per_axis * len(self._config.trained_axes)
        base = self._text_form(self.base)
        policy = base if params is None else self._text_form(params)
        weights = self._mesh.put(self.base if params is None else params)
        self._scratch.mkdir(parents=True, exist_ok=True)
        with (
            open_judge_gate(self._config, self._scratch) as gate,
            ScoringPool(self._config.scoring_threads, **gate.scoring) as pool,
        ):
            for batch in self._batches():
                rollouts = self._roll_out(weights, batch, pool)
                kl = np.zeros(len(batch.axis))
                if params is not None:
                    mask = np.repeat(rollouts.mask[:, None], rollouts.streams.shape[1], axis=1)
                    kl = self._mesh.fetch(self._divergence(policy, base, rollouts.streams, mask))
                scores += [
                    SegmentScore(
                        segment_id=batch.segment_id[n],
                        axis=batch.axis[n],
                        rewards=rewards,
                        kl=float(kl[n]),
                        agent=rollouts.views[n][0].dialogue.agent,
                    )
                    for n, rewards in enumerate(rollouts.wait())
                ]
                told(len(scores), total)
        return scores

    def samples(self, params: Params | None, segment_ids: set[str]) -> Iterator[Sample]:
        """The audio of the first rollout of some segments: that whose speech `score` tells."""
        weights = self._mesh.put(self.base if params is None else params)
        with ScoringPool(1) as pool:
            for batch in self._batches():
                if segment_ids.isdisjoint(batch.segment_id):
                    continue
                rollouts = self._roll_out(weights, batch, pool, samples=len(batch.axis))
                yield from (s for s in rollouts.samples if s.segment_id in segment_ids)

    def _roll_out(self, weights: Params, batch: GroupBatch, pool: Any, **options: int) -> Rollouts:
        return collect(
            self._config,
            self._mesh,
            self._programs,
            self._models,
            pool,
            weights,
            batch,
            self._frame_s,
            **options,
        )

    def _text_form(self, params: Params) -> Params:
        trainable, constants = self._programs.base(params)
        return merge(trainable, constants.frozen)


def make_divergence(lm: Moshi, layout: Layout) -> Callable[..., Array]:
    """The per-device program (policy, base, streams [G, K, T], mask [G, T]) -> nats a frame.

    Args:
        lm: the definition of both (static), layers stacked.
        layout: of what the text reads.
    """

    def program(policy: Params, base: Params, streams: Array, mask: Array) -> Float[Array, ""]:
        divergence = exact_kl(
            text_logits(lm, policy, layout, streams), text_logits(lm, base, layout, streams)
        )
        return jnp.where(mask, divergence, 0.0).sum() / jnp.maximum(mask.sum(), 1)

    return program


def by_axis(
    scores: Sequence[SegmentScore], axis: str, reward: str
) -> tuple[Float[np.ndarray, " N"], list[str]]:
    """Mean of a reward over the rollouts of each segment of an axis, and its conversation."""
    own = [score for score in scores if score.axis == axis]
    return np.array([_mean(score.rewards[reward]) for score in own]), [
        score.conversation for score in own
    ]


def _mean(values: Float[np.ndarray, " G"]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
