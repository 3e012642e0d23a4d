"""Rollouts of an epoch: made on the devices, scored on the host while the next ones are made."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from grpo.config import GRPOConfig
from grpo.data import GroupBatch
from grpo.mesh import Mesh
from grpo.policy import Constants
from grpo.programs import Programs
from grpo.samples import Sample
from grpo.score import Rewards, score_group
from grpo.trainable import Params
from grpo.watch import group_views
from grpo.windows import EventWindows, loss_mask
from rewards import RolloutView


class Models(NamedTuple):
    """What an epoch reads besides the train state; on every device."""

    constants: Constants
    mimi: Params
    vad: Any
    padding: tuple[int, ...] = (3, 0)  # text tokens that say nothing: PAD and EPAD


class Rollouts(NamedTuple):
    """N groups of G rollouts of this process on the host, their rewards perhaps still to come."""

    index: Int[np.ndarray, " N"]  # numbers of the groups in the run
    axis: list[str]
    streams: Int[np.ndarray, "N G K T"]
    decode_logprob: Float[np.ndarray, "N G T"]  # of the text, as drawn
    mask: Bool[np.ndarray, "N T"]  # frames with loss
    frames: Int[np.ndarray, " N"]  # frames rolled out
    rewards: list[Future[Rewards]]
    samples: list[Sample]
    views: list[list[RolloutView]]  # what the monitors look at

    def wait(self) -> list[Rewards]:
        """The rewards of every group."""
        return [future.result() for future in self.rewards]


Scorer = Callable[..., Rewards]
"""As `grpo.score.score_group`."""


class ScoringPool:
    """Threads that score groups: rules cost little, but a judge is waited for."""

    def __init__(self, threads: int, scorer: Scorer = score_group) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="score")
        self._scorer = scorer

    @property
    def listens(self) -> bool:
        """Whether the scorer wants the audio, too."""
        return getattr(self._scorer, "listens", False)

    def submit(self, *arguments: Any, **options: Any) -> Future[Rewards]:
        """Start scoring one group."""
        return self._pool.submit(self._scorer, *arguments, **options)

    def __enter__(self) -> "ScoringPool":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def collect(
    config: GRPOConfig,
    mesh: Mesh,
    programs: Programs,
    models: Models,
    pool: ScoringPool,
    weights: Params,
    batch: GroupBatch,
    frame_s: float,
    *,
    samples: int = 0,
) -> Rollouts:
    """Roll out every group of this process, one a device at a time, and start scoring each.

    A wave is given to the devices before the host looks at the one before it: they do not wait for
    each other.

    Args:
        config: of the run.
        mesh: of the run.
        programs: of the run.
        models: codec and voice activity detector.
        pool: scores.
        weights: decoding parameters.
        batch: groups, a multiple of the devices of this process.
        frame_s: seconds a frame.
        samples: rollouts of the first wave to keep with their audio.
    """
    generations = config.num_generations
    row_ids = batch.index[:, None] * generations + np.arange(generations)  # unique in the run
    streams, logprobs, rewards, kept = [], [], [], []
    views: list[list[RolloutView]] = []

    def launch(first: int) -> tuple[Any, ...]:
        here = slice(first, first + mesh.local_size)
        trajectory, wave_streams = programs.rollout(
            weights,
            models.mimi,
            batch.pcm[here],
            batch.num_frames[here].astype(np.int32),
            row_ids[here].astype(np.int32),
        )
        heard = programs.hear(models.vad, trajectory.pcm)
        wanted = pool.listens or (first == 0 and samples)
        pcm = trajectory.pcm if wanted else None
        return heard, wave_streams, trajectory.text_logprob, pcm

    def finish(first: int, wave: tuple[Any, ...]) -> None:
        heard, wave_streams, wave_logprobs, pcm = mesh.fetch(wave)
        streams.append(wave_streams)
        logprobs.append(wave_logprobs)
        for group, probabilities in enumerate(heard, first):
            text = wave_streams[group - first][:, 0]
            said: dict[str, Any] = {}
            if pool.listens:
                said = {"pcm": pcm[group - first], "text": text}
                said |= {"user": batch.pcm[group], "user_words": batch.user_words[group]}
            first_frame = int(batch.segment_start_frame[group])
            segment: dict[str, Any] = {
                "num_samples": batch.pcm.shape[1] * 2 // 3,
                "axis": batch.axis[group],
                "labels": batch.labels[group],
                "start_s": first_frame * frame_s,
                "duration_s": float(batch.segment_duration_s[group]),
            }
            rewards.append(pool.submit(probabilities, **said, **segment))
            views.append(
                group_views(
                    probabilities,
                    text,
                    padding=models.padding,
                    frames=(first_frame, int(batch.num_frames[group])),
                    **segment,
                )
            )
        if pcm is not None and first == 0 and samples:
            kept.extend(_samples(batch, pcm, wave_streams, samples))

    starts = range(0, len(batch.axis), mesh.local_size)
    ahead = launch(starts[0])
    for before, first in pairwise(starts):
        ahead, done = launch(first), ahead
        finish(before, done)
    finish(starts[-1], ahead)

    whole = np.concatenate(streams)
    return Rollouts(
        index=batch.index,
        axis=batch.axis,
        streams=whole,
        decode_logprob=np.concatenate(logprobs),
        mask=_masks(config, batch, whole.shape[-1], frame_s),
        frames=batch.num_frames,
        rewards=rewards,
        samples=kept,
        views=views,
    )


def _masks(
    config: GRPOConfig, batch: GroupBatch, length: int, frame_s: float
) -> Bool[np.ndarray, "N T"]:
    loss = config.loss
    windows = EventWindows(loss.event_lead_s, loss.event_tail_s) if loss.window == "event" else None
    bounds = zip(batch.segment_start_frame, batch.num_frames, batch.events, strict=True)
    return np.stack(
        [
            loss_mask(length, int(start), int(end), events, windows, frame_s)
            for start, end, events in bounds
        ]
    )


def _samples(
    batch: GroupBatch, pcm: np.ndarray, streams: np.ndarray, count: int
) -> Iterator[Sample]:
    """The first rollout of each of the first `count` groups of a wave."""
    for group in range(min(count, len(pcm))):
        yield Sample(
            segment_id=batch.segment_id[group],
            axis=batch.axis[group],
            user=batch.pcm[group],
            agent=pcm[group, 0],
            text=streams[group, 0, 0],
        )
