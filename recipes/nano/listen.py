"""Rolls a checkpoint out on extracted segments and prints what a voice detector hears.

    python -m recipes.nano.listen CHECKPOINT SEGMENTS

For each axis: the reward, how much it differs within a group (a group whose rewards are all equal
teaches GRPO nothing), and, with `--show`, what each agent said when.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from tyro.conf import Positional

from convert import load_mimi, load_moshi, read_configs
from grpo.config import SamplingConfig
from grpo.data import DataConfig, GroupBatch, group_batches
from grpo.rollout import Trajectory, rollout, sampling_of
from grpo.score import agent_speech, hear, score_group
from grpo.segments import AXES, FRAME_RATE_HZ
from helium_jax import TextTokenizer
from layers_jax import Precision
from layers_jax.command import run_command
from mimi_jax import write_audio
from rewards import load_vad

DIFFERENT = 0.02
"""Standard deviation above which the rewards of a group are not all the same."""


@dataclass(frozen=True, kw_only=True)
class Listen:
    """What is rolled out."""

    checkpoint: Annotated[Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
    """Checkpoint folder."""
    segments: Annotated[Positional[Path], tyro.conf.arg(metavar="SEGMENTS")]
    """Written by `moshi-jax segments extract`."""
    group: int = 8
    """Rollouts of each segment."""
    draws: int = 12
    """Segments drawn from each axis, with replacement."""
    axes: tuple[str, ...] = AXES
    """Axes that are listened to."""
    frames: int = 320
    """Length that rollouts are padded to."""
    seed: int = 0
    """Of the drawn segments and the sampled tokens."""
    show: bool = False
    """Print what the first two rollouts of each group say."""
    audio: Path | None = None
    """Folder for the audio of every group's first rollout: agent left, user right."""

    def run(self) -> None:
        """Prints the means of each axis as JSON."""
        print(json.dumps(listen(self), indent=1))


def listen(options: Listen) -> dict[str, dict[str, float]]:
    """What is heard, by axis: mean reward, its spread, and how many groups differ."""
    precision = Precision.f32()
    lm, params = load_moshi(options.checkpoint, precision=precision)
    mimi, mimi_params = load_mimi(options.checkpoint)
    tokenizer = TextTokenizer(read_configs(options.checkpoint).tokenizer)
    vad, sampling = load_vad(), sampling_of(SamplingConfig())
    roll_out = jax.jit(partial(rollout, lm, mimi, sampling=sampling, seed=options.seed))
    hear_jit, found = jax.jit(hear), {}
    for axis in options.axes:
        config = DataConfig(axes=(axis,), seed=options.seed, bucket_frames=(options.frames,))
        batches, values, shares = group_batches(options.segments, config, groups=1), [], []
        for number in range(options.draws):
            batch = next(batches)
            ids = (number * options.group + np.arange(options.group)).astype(np.int32)
            said: Trajectory = roll_out(
                params, mimi_params, batch.pcm[0], batch.num_frames[0].astype(np.int32), ids
            )
            probabilities = np.asarray(hear_jit(vad, said.pcm))
            values.append(_score(probabilities, batch, axis))
            shares.append(float((probabilities > 0.5).mean()))
            if options.show:
                _show(said, probabilities, batch, values[-1], tokenizer)
            if options.audio is not None:
                options.audio.mkdir(parents=True, exist_ok=True)
                both = np.stack([np.asarray(said.pcm[0]), batch.pcm[0]])
                path = options.audio / f"{axis}-{number}.wav"
                write_audio(path, np.clip(both, -1, 1), 24_000)
        groups = np.stack(values)
        spread = np.nanstd(groups, axis=1)
        found[axis] = {
            "reward": round(float(np.nanmean(groups)), 3),
            "std_in_group": round(float(np.nanmean(spread)), 3),
            "groups": len(groups),
            "groups_that_differ": int((spread > DIFFERENT).sum()),
            "missing": round(float(np.isnan(groups).mean()), 3),
            "speech": round(float(np.mean(shares)), 3),
        }
    return found


def _score(probabilities: np.ndarray, batch: GroupBatch, axis: str) -> np.ndarray:
    rewards = score_group(
        probabilities,
        num_samples=batch.pcm.shape[1] * 2 // 3,
        axis=axis,
        labels=batch.labels[0],
        start_s=float(batch.segment_start_frame[0] / FRAME_RATE_HZ),
        duration_s=float(batch.segment_duration_s[0]),
    )
    return next(iter(rewards.values()))


def _show(
    said: Trajectory,
    probabilities: np.ndarray,
    batch: GroupBatch,
    values: np.ndarray,
    tokenizer: TextTokenizer,
) -> None:
    start_s = float(batch.segment_start_frame[0] / FRAME_RATE_HZ)
    samples = batch.pcm.shape[1] * 2 // 3
    labels: Any = batch.labels[0]
    print(f"{batch.segment_id[0]} {labels} {batch.segment_duration_s[0]:.2f} s", file=sys.stderr)
    for row, text, value in list(zip(probabilities, np.asarray(said.text), values, strict=True))[
        :2
    ]:
        heard = " ".join(
            f"{a - start_s:.1f}-{b - start_s:.1f}" for a, b in agent_speech(row, samples)
        )
        words = "".join(tokenizer.piece(int(token)) for token in text)
        print(f"    {value:6.2f}  {heard or 'silent'}: {words}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Listens with the options given by flags; returns 0."""
    tyro.cli(Listen, args=argv, description=__doc__).run()
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m recipes.nano.listen", main))
