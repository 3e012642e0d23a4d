"""One frozen configuration says everything a training run depends on.

Defaults are the recipe of arXiv 2606.11167. The command line is this dataclass parsed by tyro, and
the resolved values are written as `config.json` into the run folder.
"""

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


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
    beta: float = 0.01
    """Weight of the exact KL divergence from the policy to the frozen base model."""

    def __post_init__(self) -> None:
        _require(0 < self.epsilon < 1, self, "epsilon", "between 0 and 1")
        _require(self.beta >= 0, self, "beta", "at least 0")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW on float32 master weights, cosine to zero over the run, no warm-up."""

    learning_rate: float = 2e-7
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    """Decoupled decay; norm scales are excluded."""
    clip_norm: float = 2.0
    """Global norm to which the averaged gradient is clipped."""

    def __post_init__(self) -> None:
        _require(self.learning_rate > 0, self, "learning_rate", "above 0")
        _require(0 <= self.beta1 < 1, self, "beta1", "in [0, 1)")
        _require(0 <= self.beta2 < 1, self, "beta2", "in [0, 1)")
        _require(self.weight_decay >= 0, self, "weight_decay", "at least 0")
        _require(self.clip_norm > 0, self, "clip_norm", "above 0")


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
    axes: tuple[str, ...] = ("pause", "turn")
    """Interactivity axes whose segments are drawn, each equally often."""
    prefix_silence_s: float = 3.0
    """Silence put before the user's audio, in which the model finishes its greeting."""
    bucket_frames: tuple[int, ...] = (64, 128, 192, 256, 384, 512, 640, 832)
    """Lengths rollouts are padded to; each one that occurs is compiled once."""
    precision: Literal["bf16", "f32"] = "bf16"
    """Weights and arithmetic of the model; the master weights are float32 either way."""
    checkpoint_every: int = 10
    """Epochs between checkpoints; the last epoch is always saved."""
    seed: int = 0
    """Seed of the draw of segments, of the rollouts and of the order of updates."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, self, "epochs", "at least 1")
        _require(self.groups_per_epoch >= 1, self, "groups_per_epoch", "at least 1")
        rule = "at least 2 (advantages compare rollouts of one group)"
        _require(self.num_generations >= 2, self, "num_generations", rule)
        _require(self.devices is None or self.devices >= 1, self, "devices", "none or at least 1")
        _require(len(self.axes) >= 1, self, "axes", "at least one axis")
        _require(self.prefix_silence_s >= 0, self, "prefix_silence_s", "at least 0 seconds")
        increasing = list(self.bucket_frames) == sorted({n for n in self.bucket_frames if n > 0})
        rule = "one or more increasing positive frame counts"
        _require(bool(self.bucket_frames) and increasing, self, "bucket_frames", rule)
        _require(self.precision in ("bf16", "f32"), self, "precision", "'bf16' or 'f32'")
        _require(self.checkpoint_every >= 1, self, "checkpoint_every", "at least 1")
        _require(0 <= self.seed < 2**31, self, "seed", "in [0, 2**31)")

    @property
    def total_updates(self) -> int:
        """Optimizer updates in the whole run: the length of the cosine."""
        return self.epochs * self.num_generations

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
        elif kind is Path:
            value = Path(value)
        elif isinstance(value, list):
            value = tuple(value)
        rebuilt[name] = value
    return cls(**rebuilt)
