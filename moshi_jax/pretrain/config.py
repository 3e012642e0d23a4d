"""One frozen configuration says everything a supervised run depends on."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from grpo.config import LoraTraining, OptimizerConfig, TrackingConfig
from grpo.distributed import DistributedConfig

__all__ = ["FREE_TO_CHANGE", "PretrainConfig"]

FREE_TO_CHANGE = {
    "devices",
    "mapping",
    "mesh_shape",
    "distributed",
    "tracking",
    "log_every",
    "checkpoint_every",
    "max_skipped_updates",
    "diverged_at",
    "eval_every",
}
"""Settings that do not change what a run computes: it may continue with others."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A supervised run: which model, which recordings, how long.

    Defaults are those of moshi-finetune, as far as they are about the same thing.
    """

    checkpoint: Path
    """Checkpoint folder to start from, as Kyutai publishes it."""
    data: Path
    """Folder written by `moshi-jax pretrain encode` with that checkpoint."""
    run_dir: Path
    """Gets config.json, metrics.jsonl, checkpoints/ and export/. A run found there is continued."""
    eval_data: Path | None = None
    """Recordings that are never trained on, encoded as `data`."""
    steps: int = 2000
    """Updates."""
    batch: int = 16
    """Cuts an update, over all devices."""
    cut_frames: int = 1250
    """Frames of a cut; 1250 are 100 s. A model trained on short cuts falls silent after them."""
    from_start: float = 0.0
    """Share of the cuts that begin where their recording does, as a session begins."""
    first_codebook_weight: float = 100.0
    """Weight of the semantic codebook against each of the others."""
    text_padding_weight: float = 0.5
    """Weight of frames without a word against those with one."""
    user_weight: float = 0.0
    """Weight of predicting the user's semantic codebook, by a head that is not exported."""
    precision: Literal["bf16", "f32"] = "bf16"
    """Weights and arithmetic of the model; the master weights are float32 either way."""
    weight_rounding: Literal["nearest", "stochastic"] = "nearest"
    """How master weights become bf16: to the nearest, or at random with the right mean (seeded)."""
    export_dtypes: Literal["float32", "bfloat16"] = "float32"
    """Number format of the exported weights."""
    devices: int | None = None
    """Devices to use; none takes all that are present."""
    mapping: Literal["pmap", "shard_map"] = "pmap"
    """A whole replica of weights, master and moments on each device, or all of it in blocks."""
    mesh_shape: tuple[int, ...] | None = None
    """Devices along each axis of the mesh (mapping shard_map); one axis if none."""
    log_every: int = 10
    """Updates that a line of metrics.jsonl is about."""
    eval_every: int = 100
    """Updates between two looks at `eval_data`; the last update is always followed by one."""
    checkpoint_every: int = 500
    """Updates between checkpoints, a multiple of `log_every`; the last is always saved."""
    max_skipped_updates: int = 3
    """Updates in a row without a finite gradient that end the run."""
    diverged_at: float = 2.0
    """A loss of this many times that of the first line of metrics ends the run."""
    seed: int = 0
    """Of the order of the data, of fresh adapters and of random rounding."""
    lora: LoraTraining = field(default_factory=LoraTraining)
    """Adapters to train in place of the weights, in both transformers."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=2e-6, clip_norm=1.0, warmup_updates=100
        )
    )
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)

    def __post_init__(self) -> None:
        rules = (
            ("steps", self.steps >= 1, "at least 1"),
            ("batch", self.batch >= 1, "at least 1"),
            ("cut_frames", self.cut_frames >= 2, "at least 2"),
            ("from_start", 0 <= self.from_start <= 1, "from 0 to 1"),
            ("first_codebook_weight", self.first_codebook_weight > 0, "above 0"),
            ("text_padding_weight", self.text_padding_weight >= 0, "at least 0"),
            ("user_weight", self.user_weight >= 0, "at least 0"),
            ("log_every", self.log_every >= 1, "at least 1"),
            ("eval_every", self.eval_every >= 1, "at least 1"),
            (
                "checkpoint_every",
                self.checkpoint_every >= 1 and self.checkpoint_every % self.log_every == 0,
                f"a multiple of log_every, {self.log_every}",
            ),
            ("max_skipped_updates", self.max_skipped_updates >= 1, "at least 1"),
            ("diverged_at", self.diverged_at > 1, "above 1"),
            (
                "weight_rounding",
                self.weight_rounding == "nearest" or self.precision == "bf16",
                "'nearest', or 'stochastic' with precision bf16",
            ),
            (
                "mesh_shape",
                self.mesh_shape is None or self.mapping == "shard_map",
                "none with mapping pmap",
            ),
            ("seed", 0 <= self.seed < 2**31, "in [0, 2**31)"),
        )
        for name, ok, rule in rules:
            if not ok:
                raise ValueError(
                    f"PretrainConfig.{name} is {getattr(self, name)!r}; it must be {rule}"
                )

    def to_json(self) -> str:
        """Every field, nested, as indented JSON with paths as strings."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str)
