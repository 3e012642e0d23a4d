"""One frozen configuration says everything a training run depends on.

Defaults are the recipe of arXiv 2606.11167; its ablations are flags named as there. The command
line is this dataclass parsed by tyro, and the resolved values are written as `config.json` into the
run folder.
"""

import dataclasses
import json
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from grpo.advantages import ESTIMATORS, Estimator
from grpo.distributed import DistributedConfig
from grpo.perturb import PerturbConfig
from grpo.segments import AXES
from rewards import REWARDS
from rewards.asr import AsrConfig
from rewards.judge import JUDGE_AXES, JUDGE_REWARD, JudgeConfig


def _require(ok: bool, owner: object, name: str, rule: str) -> None:
    """Raise one line naming the field, its value and the rule it breaks."""
    if not ok:
        cls = type(owner).__name__
        raise ValueError(f"{cls}.{name} is {getattr(owner, name)!r}; it must be {rule}")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How rollouts draw tokens.

    Text is drawn from the whole vocabulary: after a truncated draw the policy ratio of the loss
    would belong to another distribution than the one sampled from.
    """

    text_temperature: float = 0.7
    """Temperature of text tokens; also the temperature of the log-probs in the policy ratio."""
    audio_temperature: float = 0.8
    """Temperature of audio tokens (they carry no gradient)."""
    audio_top_k: int = 250
    """Audio tokens are drawn from this many most probable codes."""

    def __post_init__(self) -> None:
        _require(self.text_temperature > 0, self, "text_temperature", "above 0")
        _require(self.audio_temperature > 0, self, "audio_temperature", "above 0")
        _require(self.audio_top_k >= 1, self, "audio_top_k", "at least 1")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The clipped surrogate and its KL anchor."""

    epsilon: float = 0.2
    """The policy ratio is clipped to [1 - epsilon, 1 + epsilon]."""
    epsilon_high: float | None = None
    """Another upper reach of the clip, 1 + epsilon_high ("clip higher", DAPO); epsilon if none."""
    beta: float = 0.01
    """Weight of the exact KL divergence from the policy to the frozen base model."""
    aggregate: Literal["rollout", "frame"] = "rollout"
    """Mean over frames within a rollout first, or over all frames alike."""
    action_space: Literal["text_tokens", "speak_silence", "speak_silence_sum"] = "text_tokens"
    """Actions: text tokens, or PAD against the rest (ASPIRin) by its exact marginal; "sum" is that
    paper's sum of raw logits, for reproduction."""
    window: Literal["segment", "event"] = "segment"
    """Frames with loss: the segment, or those around its events (DuplexPO)."""
    event_lead_s: float = 1.0
    """How long before an event its window begins (window "event")."""
    event_tail_s: float = 2.0
    """How long after an event its window ends (window "event")."""

    def __post_init__(self) -> None:
        _require(0 < self.epsilon < 1, self, "epsilon", "between 0 and 1")
        high = self.epsilon_high is None or self.epsilon_high >= self.epsilon
        _require(high, self, "epsilon_high", "none or at least epsilon")
        _require(self.beta >= 0, self, "beta", "at least 0")
        _require(self.aggregate in ("rollout", "frame"), self, "aggregate", "'rollout' or 'frame'")
        spaces = ("text_tokens", "speak_silence", "speak_silence_sum")
        _require(self.action_space in spaces, self, "action_space", f"one of {spaces}")
        _require(self.window in ("segment", "event"), self, "window", "'segment' or 'event'")
        _require(self.event_lead_s >= 0, self, "event_lead_s", "at least 0 seconds")
        _require(self.event_tail_s > 0, self, "event_tail_s", "above 0 seconds")


@dataclass(frozen=True, kw_only=True)
class AdvantageConfig:
    """How the rewards of a group become advantages."""

    estimator: Estimator = "gdpo"
    """gdpo standardises each reward alone and adds; the others add the rewards first: grpo
    standardises the sum, drgrpo centres it, rloo compares with the mean of the other rollouts
    (REINFORCE, leave one out)."""
    clip: float | None = None
    """Advantages are cut off at plus and minus this (DuplexPO: 5); not at all if none."""
    weights: dict[str, float] = field(default_factory=dict)
    """Factor of a reward, by its name; 1 for those not named. Rewards have units of their own (a
    share, seconds): drgrpo and rloo leave them as they are."""

    def __post_init__(self) -> None:
        _require(self.estimator in ESTIMATORS, self, "estimator", f"one of {ESTIMATORS}")
        _require(self.clip is None or self.clip > 0, self, "clip", "none or above 0")
        names = sorted({*REWARDS, JUDGE_REWARD})
        known = all(name in names and math.isfinite(w) for name, w in self.weights.items())
        _require(known, self, "weights", f"finite numbers by names out of {', '.join(names)}")


@dataclass(frozen=True, kw_only=True)
class LoraTraining:
    """Adapters that are trained in place of the model's own weights."""

    rank: int | None = None
    """Inner width of the adapters; none trains the weights themselves."""
    scaling: float = 2.0
    """Factor of an adapter's output."""
    targets: tuple[str, ...] = ("attention", "mlp")
    """Which matrices of the temporal transformer get one, and "head" for that of the text."""

    def __post_init__(self) -> None:
        _require(self.rank is None or self.rank >= 1, self, "rank", "none or at least 1")
        known = bool(self.targets) and set(self.targets) <= {"attention", "mlp", "head"}
        _require(known, self, "targets", "one or more of attention, mlp, head")


@dataclass(frozen=True, kw_only=True)
class ContextConfig:
    """User audio before a segment that is heard first, without loss: a curriculum over the run."""

    probability: float = 0.5
    """How often a rollout starts with context; its length is uniform up to the epoch's limit."""
    max_s: float = 30.0
    """The limit: grows linearly from 0 in the first epoch to this in the last."""

    def __post_init__(self) -> None:
        _require(0 <= self.probability <= 1, self, "probability", "from 0 to 1")
        _require(0 < self.max_s < float("inf"), self, "max_s", "above 0 seconds")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW on float32 master weights, cosine to zero over the run."""

    learning_rate: float = 2e-7
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    """Decoupled decay; norm scales are excluded."""
    clip_norm: float = 2.0
    """Global norm to which the averaged gradient is clipped."""
    warmup_updates: int = 0
    """Updates over which the rate rises from 0 before the cosine begins."""
    moments: Literal["float32", "bfloat16"] = "float32"
    """Format in which both moments are held between updates; bfloat16 saves 4 bytes a weight."""

    def __post_init__(self) -> None:
        _require(self.learning_rate > 0, self, "learning_rate", "above 0")
        _require(0 <= self.beta1 < 1, self, "beta1", "in [0, 1)")
        _require(0 <= self.beta2 < 1, self, "beta2", "in [0, 1)")
        _require(self.weight_decay >= 0, self, "weight_decay", "at least 0")
        _require(self.clip_norm > 0, self, "clip_norm", "above 0")
        _require(self.warmup_updates >= 0, self, "warmup_updates", "at least 0")
        formats = ("float32", "bfloat16")
        _require(self.moments in formats, self, "moments", f"one of {formats}")


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where metrics go besides metrics.jsonl."""

    tensorboard: bool = False
    """Event files in the run folder (extra `tensorboard`)."""
    wandb_project: str | None = None
    """Project at Weights & Biases (extra `wandb`)."""


@dataclass(frozen=True, kw_only=True)
class SamplesConfig:
    """Rollouts kept as audio (user left, agent right) with their text, in the run's samples/."""

    every_epochs: int = 10
    """Epochs between them; 0 keeps none."""
    count: int = 2
    """How many, each of another group; at most one a device."""

    def __post_init__(self) -> None:
        _require(self.every_epochs >= 0, self, "every_epochs", "at least 0")
        _require(self.count >= 1, self, "count", "at least 1")

    def due(self, epoch: int) -> int:
        """How many to keep of an epoch."""
        return self.count if self.every_epochs and epoch % self.every_epochs == 0 else 0


@dataclass(frozen=True, kw_only=True)
class GRPOConfig:
    """A GRPO run: which model, which segments, how long, and the recipe."""

    checkpoint: Path
    """Checkpoint directory as Kyutai publishes it: config.json, model and Mimi safetensors."""
    segments: Path
    """Directory written by `moshi-jax segments extract`."""
    run_dir: Path
    """Gets config.json, metrics.jsonl, checkpoints/ and export/. A run found there is continued."""
    epochs: int = 100
    """Rounds of rollouts and updates."""
    groups_per_epoch: int = 32
    """Segments rolled out per epoch, a multiple of the devices; updates use one rollout of each."""
    num_generations: int = 16
    """Rollouts per group (G), which is also the number of updates per epoch."""
    devices: int | None = None
    """Devices to use; none takes all that are present."""
    axes: tuple[str, ...] = AXES
    """Interactivity axes whose segments are drawn: each once in as many groups as there are."""
    drop_axis: tuple[str, ...] = ()
    """Ablation: axes to train without."""
    no_judge: bool = False
    """Ablation: train the axes turn and interruption on their delay alone."""
    no_context: bool = False
    """Ablation: rollouts never start with context."""
    no_context_schedule: bool = False
    """Ablation: context may have its full length from the first epoch on."""
    prefix_silence_s: float = 3.0
    """Silence put before the user's audio, in which the model finishes its greeting."""
    bucket_frames: tuple[int, ...] = (64, 128, 192, 256, 384, 512, 640, 832)
    """Lengths rollouts are padded to; each one that occurs is compiled once."""
    precision: Literal["bf16", "f32"] = "bf16"
    """Weights and arithmetic of the model; the master weights are float32 either way."""
    weight_rounding: Literal["nearest", "stochastic"] = "nearest"
    """How master weights become bf16: to the nearest, or at random with the right mean (seeded)."""
    mapping: Literal["pmap", "shard_map"] = "pmap"
    """A whole replica of weights, master and moments on each device, or all of it in blocks."""
    mesh_shape: tuple[int, ...] | None = None
    """Devices along each axis of the mesh (mapping shard_map), best as the torus; else one axis."""
    max_skipped_updates: int = 3
    """Updates in a row without a finite gradient, or epochs without a reward, that end the run."""
    scoring_threads: int = 16
    """Groups that are scored at a time while the devices work: a judge is waited for."""
    monitors: Literal["alert", "stop"] = "alert"
    """Rollouts that leave the bounds of `rewards.monitors` are said, or also end the run, saved."""
    checkpoint_every: int = 10
    """Epochs between checkpoints; the last epoch is always saved."""
    seed: int = 0
    """Seed of the draw of segments, of the rollouts and of the order of updates."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    lora: LoraTraining = field(default_factory=LoraTraining)
    context: ContextConfig = field(default_factory=ContextConfig)
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    asr: AsrConfig = field(default_factory=AsrConfig)

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, self, "epochs", "at least 1")
        _require(self.groups_per_epoch >= 1, self, "groups_per_epoch", "at least 1")
        rule = "at least 2 (advantages compare rollouts of one group)"
        _require(self.num_generations >= 2, self, "num_generations", rule)
        _require(self.devices is None or self.devices >= 1, self, "devices", "none or at least 1")
        known = bool(self.axes) and set(self.axes) <= set(AXES)
        _require(known, self, "axes", f"one or more of {', '.join(AXES)}")
        dropped = set(self.drop_axis) <= set(self.axes) and bool(self.trained_axes)
        _require(dropped, self, "drop_axis", f"some, not all, of the axes {', '.join(self.axes)}")
        needless = not (self.no_context and self.no_context_schedule)
        _require(needless, self, "no_context_schedule", "left out with no_context")
        _require(self.prefix_silence_s >= 0, self, "prefix_silence_s", "at least 0 seconds")
        increasing = list(self.bucket_frames) == sorted({n for n in self.bucket_frames if n > 0})
        rule = "one or more increasing positive frame counts"
        _require(bool(self.bucket_frames) and increasing, self, "bucket_frames", rule)
        _require(self.precision in ("bf16", "f32"), self, "precision", "'bf16' or 'f32'")
        stochastic = self.weight_rounding == "nearest" or self.precision == "bf16"
        rule = "'nearest', or 'stochastic' with precision bf16"
        _require(stochastic, self, "weight_rounding", rule)
        shaped = self.mesh_shape is None or self.mapping == "shard_map"
        _require(shaped, self, "mesh_shape", "none with mapping pmap")
        _require(self.max_skipped_updates >= 1, self, "max_skipped_updates", "at least 1")
        alone = not self.no_judge or self.judge.kind == "none"
        _require(alone, self, "no_judge", "left out with a judge")
        hears = self.judge.kind == "none" or self.asr.kind != "none"
        rule = "some kind of recognizer, with a judge: it reads what was said"
        _require(hears, self, "asr", rule)
        _require(self.monitors in ("alert", "stop"), self, "monitors", "'alert' or 'stop'")
        _require(self.scoring_threads >= 1, self, "scoring_threads", "at least 1")
        _require(self.checkpoint_every >= 1, self, "checkpoint_every", "at least 1")
        _require(0 <= self.seed < 2**31, self, "seed", "in [0, 2**31)")

    @property
    def total_updates(self) -> int:
        """Optimizer updates in the whole run: the length of the cosine."""
        return self.epochs * self.num_generations

    @property
    def trained_axes(self) -> tuple[str, ...]:
        """The axes that are drawn."""
        return tuple(axis for axis in self.axes if axis not in self.drop_axis)

    def check_judge(self) -> None:
        """Refuse to train judged axes without a judge unless that was asked for.

        Raises:
            ValueError: neither a judge nor its absence was chosen.
        """
        judged = [axis for axis in self.trained_axes if axis in JUDGE_AXES]
        if judged and self.judge.kind == "none" and not self.no_judge:
            raise ValueError(
                f"no judge for the axes {', '.join(judged)}, expected --judge.kind remote or "
                "embedded; --no-judge trains them on their delay alone, which teaches to answer "
                "fast and say nothing"
            )

    def to_json(self) -> str:
        """Every field, nested, as indented JSON with paths as strings."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str)

    @classmethod
    def from_json(cls, text: str) -> "GRPOConfig":
        """The config that `to_json` wrote.

        Raises:
            ValueError: a key is unknown or a value breaks its rule.
            TypeError: a required key is missing.
        """
        return _from_dict(cls, json.loads(text))


def _from_dict(cls: type, values: dict[str, Any]) -> Any:
    """Rebuild nested dataclasses and paths from plain JSON values."""
    hints = typing.get_type_hints(cls)
    unknown = sorted(values.keys() - hints.keys())
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {unknown}; known: {sorted(hints)}")
    rebuilt = {}
    for name, value in values.items():
        kind = hints[name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            value = _from_dict(kind, value)
        elif kind is Path or (kind == Path | None and value is not None):
            value = Path(value)
        elif isinstance(value, list):
            value = tuple(value)
        rebuilt[name] = value
    return cls(**rebuilt)
