"""Rolls a checkpoint out on extracted segments and prints what a voice detector hears.

    python -m recipes.tiny.listen runs/tiny runs/segments

One line a segment: share of the segment in which the agent speaks, and the rewards of its group.
A group whose rewards are all equal teaches GRPO nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro
from tyro.conf import Positional

from convert import load_mimi, load_moshi
from grpo.config import SamplingConfig
from grpo.data import DataConfig, group_batches
from grpo.rollout import Trajectory, rollout, sampling_of
from grpo.score import hear, score_group
from helium_jax import TextTokenizer
from layers_jax.command import run_command
from mimi_jax import write_audio
from rewards import load_vad, speech_intervals


@dataclass(frozen=True, kw_only=True)
class Listen:
    """What is rolled out."""

    checkpoint: Annotated[Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
    """Checkpoint folder."""
    segments: Annotated[Positional[Path], tyro.conf.arg(metavar="SEGMENTS")]
    """Written by `moshi-jax segments extract`."""
    group: int = 8
    """Rollouts of each segment."""
    draws: int = 6
    """Segments drawn from each axis, with replacement."""
    axes: tuple[str, ...] = ("pause", "turn")
    """Axes that are listened to."""
    seed: int = 0
    """Of the drawn segments and the sampled tokens."""
    audio: Path | None = None
    """Folder for the audio of every group's first rollout: agent left, user right."""

    def run(self) -> None:
        """Prints a line a segment and the means of each axis."""
        listen(self)


def listen(options: Listen) -> dict[str, list[np.ndarray]]:
    """The rewards of every group by axis; each group's are an array of G numbers."""
    lm, params = load_moshi(options.checkpoint)
    mimi, mimi_params = load_mimi(options.checkpoint)
    tokenizer = TextTokenizer(next(options.checkpoint.glob("*.model")))
    vad, sampling = load_vad(), sampling_of(SamplingConfig())
    roll_out = jax.jit(partial(rollout, lm, mimi, sampling=sampling, seed=options.seed))
    hear_jit, found = jax.jit(hear), {}
    for axis in options.axes:
        config = DataConfig(axes=(axis,), seed=options.seed, bucket_frames=(256, 512))
        batches, shares, of_axis = group_batches(options.segments, config, groups=1), [], []
        for number in range(options.draws):
            batch, started = next(batches), time.monotonic()
            ids = (number * options.group + np.arange(options.group)).astype(np.int32)
            said: Trajectory = roll_out(
                params, mimi_params, batch.pcm[0], batch.num_frames[0].astype(np.int32), ids
            )
            probabilities = np.asarray(hear_jit(vad, said.pcm))
            spent = time.monotonic() - started
            start_s, duration_s = batch.segment_start_frame[0] / 12.5, batch.segment_duration_s[0]
            samples = batch.pcm.shape[1] * 2 // 3
            rewards = score_group(
                probabilities,
                num_samples=samples,
                axis=axis,
                labels=batch.labels[0],
                start_s=float(start_s),
                duration_s=float(duration_s),
            )
            values = next(iter(rewards.values()))
            first, last = (int(s / 0.032) for s in (start_s, start_s + duration_s))
            speech = (probabilities[:, first:last] > 0.5).mean(axis=1)
            early = (probabilities[:, :first] > 0.5).mean()
            print(
                f"{batch.segment_id[0]:40} speech {np.round(speech, 2)} prefix {early:.2f} "
                f"reward {values.mean():.2f} ± {values.std():.2f} {np.round(values, 2)} "
                f"({spent:.1f} s)",
                flush=True,
            )
            for row, text in list(zip(probabilities, np.asarray(said.text), strict=True))[:2]:
                heard = " ".join(
                    f"{a - start_s:.1f}-{b - start_s:.1f}"
                    for a, b in speech_intervals(row, samples)
                )
                words = "".join(tokenizer.piece(int(token)) for token in text)
                print(f"    {heard or 'silent'}: {words}")
            if options.audio is not None:
                options.audio.mkdir(parents=True, exist_ok=True)
                both = np.stack([np.asarray(said.pcm[0]), batch.pcm[0]])
                name = f"{axis}-{number}.wav"
                write_audio(options.audio / name, np.clip(both, -1, 1), 24_000)
            shares.append(speech)
            of_axis.append(values)
        spread = [float(group.std()) for group in of_axis]
        print(
            f"{axis}: speech {np.mean(shares):.2f}, reward {np.mean(of_axis):.3f}, std inside a "
            f"group {np.mean(spread):.3f}, groups that differ "
            f"{sum(s > 0.02 for s in spread)} of {len(spread)}",
            flush=True,
        )
        found[axis] = of_axis
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Listens with the options given by flags; returns 0."""
    tyro.cli(Listen, args=argv, description=__doc__).run()
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m recipes.tiny.listen", main))
