"""GRPO on the small embedded model, and what it changed on segments nobody trained on.

    bank ─▶ conversations ─▶ segments ─▶ grpo.train ─▶ tuned ─┐
    bank, what is held out ─▶ conversations ─▶ segments ──────┴▶ base and tuned, compared

A `Recipe` is the ordinary `GRPOConfig` of a run with the numbers a model of this size wants. The
held-out segments, their random draws, and so the scores of the base are the same for every recipe.
"""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from grpo import GRPOConfig, train
from grpo.config import (
    AdvantageConfig,
    LossConfig,
    OptimizerConfig,
    SamplesConfig,
    SamplingConfig,
)
from grpo.heldout import HeldOut, SegmentScore
from grpo.records import MANIFEST, read_manifest
from grpo.segments import AXES, FRAME_RATE_HZ
from grpo.tracking import read_metrics
from grpo.train import TrainResult
from moshi_jax.demo.comparison import AxisResult, compare_axes, mean_kl
from moshi_jax.nano.bank import read_bank
from moshi_jax.nano.conversations import Voices
from moshi_jax.nano.corpus import write_segments
from moshi_jax.nano.sentences import Split
from rewards.asr import AsrConfig
from rewards.judge import JudgeConfig

PREFIX_S = 0.48
"""Silence before a segment: this model has no greeting to finish."""
HELD_OUT_SEED = 1_000_000
"""Of the held-out conversations and of the rollouts on them; training uses its own, from 0 on."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a run of GRPO on the embedded model depends on.

    Attributes:
        seed: of the training conversations, the draws and the rollouts.
        epochs: rounds of rollouts and updates.
        groups_per_epoch: segments rolled out an epoch.
        num_generations: rollouts of each segment.
        learning_rate: of AdamW; a small model needs more than 2e-7.
        text_temperature: of the rollouts, in training and on held-out segments.
        beta: weight of the KL to the base.
        estimator: of the advantages.
        weights: of the rewards, by name: a share of 1 and some seconds on one scale.
        drop_axis: ablation: axes to train without.
        no_judge: ablation: delay alone on the axes that have a judge.
        action_space: of the loss.
        window: of the loss.
        train_conversations: composed for training, 40 s each.
    """

    seed: int = 0
    epochs: int = 30
    groups_per_epoch: int = 16
    num_generations: int = 8
    learning_rate: float = 3e-4
    text_temperature: float = 1.0
    beta: float = 0.05
    estimator: Literal["gdpo", "grpo", "drgrpo", "rloo"] = "drgrpo"
    weights: dict[str, float] = field(
        default_factory=lambda: {"pause_handling": 8.0, "backchanneling": 2.0}
    )
    drop_axis: tuple[str, ...] = ()
    no_judge: bool = False
    action_space: Literal["text_tokens", "speak_silence"] = "text_tokens"
    window: Literal["segment", "event"] = "event"
    train_conversations: int = 40

    def config(self, checkpoint: Path, data: "Data", run_dir: Path, devices: int) -> GRPOConfig:
        """The run."""
        return GRPOConfig(
            checkpoint=checkpoint,
            segments=data.train,
            run_dir=run_dir,
            epochs=self.epochs,
            groups_per_epoch=self.groups_per_epoch,
            num_generations=self.num_generations,
            devices=devices,
            drop_axis=self.drop_axis,
            no_judge=self.no_judge,
            no_context=True,
            prefix_silence_s=PREFIX_S,
            # One length: each is compiled anew, and a rollout ends with its own segment anyway.
            bucket_frames=(data.frames,),
            precision="f32",
            checkpoint_every=10,
            seed=self.seed,
            # Sorting 250 of a small codebook's entries would take longer than the model.
            sampling=SamplingConfig(text_temperature=self.text_temperature, audio_top_k=32),
            loss=LossConfig(beta=self.beta, action_space=self.action_space, window=self.window),
            advantage=AdvantageConfig(estimator=self.estimator, weights=self.weights),
            samples=SamplesConfig(every_epochs=0),
            optimizer=OptimizerConfig(learning_rate=self.learning_rate),
            judge=JudgeConfig(kind="none" if self.no_judge else "embedded"),
            asr=AsrConfig(kind="text_stream"),
        )


@dataclass(frozen=True, kw_only=True)
class Data:
    """Segments to train on and to compare on, and the length that holds the longest of them."""

    train: Path
    held_out: Path
    frames: int

    @property
    def user_audio(self) -> Path:
        """A held-out conversation; its user is on channel 1."""
        return self.held_out.parent / "conversations" / "00000.wav"


def prepare(
    folder: Path, *, seed: int, train_conversations: int, held_out_conversations: int
) -> Data:
    """Compose conversations out of the bank and cut segments out of them; what is there is kept."""
    train = _segments(folder / f"train-{seed}", "train", seed, train_conversations)
    held_out = _segments(folder / "held-out", "heldout", HELD_OUT_SEED, held_out_conversations)
    entries = [*read_manifest(train), *read_manifest(held_out)]
    longest = max(entry.segment.num_frames for entry in entries)
    frames = longest + round(PREFIX_S * FRAME_RATE_HZ)
    return Data(train=train, held_out=held_out, frames=-(-frames // 8) * 8)


def _segments(folder: Path, split: Split, seed: int, count: int) -> Path:
    segments = folder / "segments"
    if not (segments / MANIFEST).is_file():
        write_segments(folder, Voices(read_bank(), split), seed=seed, count=count)
    return segments


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run changed, as it is printed and kept.

    Attributes:
        recipe: of the run.
        axes: what was compared, first the four timing rewards, then the judge.
        kl: nats a frame from the base to the tuned model, mean over the held-out segments.
        kl_by_axis: the same on the segments of each axis.
        updates: of the weights.
        rollouts: of each held-out segment.
        seconds: by stage.
        curves: by metric, a value an epoch.
    """

    recipe: Recipe
    axes: tuple[AxisResult, ...]
    kl: float
    kl_by_axis: dict[str, float]
    updates: int
    rollouts: int
    seconds: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[float | None]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Held-out segments of a checkpoint, and runs that are compared on them.

    Attributes:
        checkpoint: of the base.
        data: of one seed; only the held-out part matters to the comparison.
        devices: to train and to roll out on.
        per_axis: held-out segments of each axis.
        rollouts: of each.
        scratch: folder for what the judge keeps.
    """

    checkpoint: Path
    data: Data
    devices: int
    per_axis: int
    rollouts: int
    scratch: Path

    def held_out(self) -> HeldOut:
        """The held-out segments: all four axes and the judge, whatever a run was trained on."""
        config = Recipe(seed=HELD_OUT_SEED).config(
            self.checkpoint, self.data, self.scratch, self.devices
        )
        return HeldOut(
            config,
            self.data.held_out,
            per_axis=self.per_axis,
            rollouts=self.rollouts,
            scratch=self.scratch,
        )

    def train(self, recipe: Recipe, run_dir: Path) -> TrainResult:
        """Train; a run that is there is continued."""
        return train(recipe.config(self.checkpoint, self.data, run_dir, self.devices))

    def result(
        self,
        recipe: Recipe,
        trained: TrainResult,
        base: list[SegmentScore],
        tuned: list[SegmentScore],
        seconds: dict[str, float],
    ) -> Result:
        """What a run changed."""
        epochs = read_metrics(trained.metrics)
        names = [n for n in epochs[0] if n.startswith("rewards/") and n != "rewards/valid_frac"]
        return Result(
            recipe=recipe,
            axes=compare_axes(base, tuned),
            kl=mean_kl(tuned),
            kl_by_axis={axis: mean_kl(tuned, axis) for axis in AXES},
            updates=recipe.epochs * recipe.num_generations,
            rollouts=self.rollouts,
            seconds=seconds,
            curves={name: [epoch.get(name) for epoch in epochs] for name in [*names, "kl"]},
        )


class Clock:
    """Seconds of the stages of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def lap(self, name: str) -> float:
        """Ends a stage: the time since the one before."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self._started, 1)
        self._started = now
        return self.seconds[name]
