"""How often a checkpoint answers what it is asked.

    python -m recipes.nano.answers CHECKPOINT

Every question of the repertoire is put to it, alone, and the right answer is looked for in what it
writes after the question: the words of the answer in their order. Lines that were never trained on
("heldout") ask for facts that were, in other words.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro
from tyro.conf import Positional

from convert import load_mimi, load_moshi, read_configs
from grpo.config import SamplingConfig
from grpo.rollout import Trajectory, rollout, sampling_of
from helium_jax import TextTokenizer
from layers_jax import Precision
from layers_jax.command import run_command
from moshi_jax.nano.bank import SAMPLE_RATE, read_bank
from moshi_jax.nano.conversations import Spoken, Voices
from moshi_jax.nano.sentences import Split

FRAME = 1920
LEAD_FRAMES, FRAMES = 12, 150
"""Silence before the question, and the whole of it: the answer has at least 5 s."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What is asked of whom."""

    checkpoint: Annotated[Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
    """Checkpoint folder."""
    bank: Path | None = None
    """Recordings of the repertoire; the embedded ones by default."""
    samples: int = 4
    """Answers to each question, drawn as GRPO draws them."""
    seed: int = 0
    """Of the draws."""
    show: bool = False
    """Print every question and the first answer to it."""

    def run(self) -> None:
        """Prints the shares as JSON."""
        print(json.dumps(answers(self), indent=1))


def answers(options: Answers) -> dict[str, dict[str, float]]:
    """Shares of right answers by split; "said" is how often anything was said."""
    lm, params = load_moshi(options.checkpoint, precision=Precision.f32())
    mimi, mimi_params = load_mimi(options.checkpoint)
    tokenizer = TextTokenizer(read_configs(options.checkpoint).tokenizer)
    ask = jax.jit(
        partial(rollout, lm, mimi, sampling=sampling_of(SamplingConfig()), seed=options.seed)
    )
    found: dict[str, dict[str, float]] = {}
    splits: tuple[Split, Split] = ("train", "heldout")
    for split in splits:
        right, said, whole = [], [], []
        for number, question in enumerate(Voices(read_bank(options.bank), split).questions):
            pcm, end_s = put(question)
            ids = (number * options.samples + np.arange(options.samples)).astype(np.int32)
            heard: Trajectory = ask(params, mimi_params, pcm, np.int32(FRAMES), ids)
            first = int(end_s * SAMPLE_RATE / FRAME)
            texts = [
                "".join(map(tokenizer.piece, map(int, row[first:]))).strip()
                for row in np.asarray(heard.text)
            ]
            wanted, heard_as = list(map(plain, question.line.answers)), list(map(plain, texts))
            right += [any(a in text for a in wanted) for text in heard_as]
            whole += [any(text.startswith(a) for a in wanted) for text in heard_as]
            said += [bool(text) for text in texts]
            if options.show:
                print(f"{split}: {question.line.text} -> {texts[0]}", file=sys.stderr)
        found[split] = {
            "asked": len(right),
            "right": round(float(np.mean(right)), 3),
            "right_at_once": round(float(np.mean(whole)), 3),
            "said": round(float(np.mean(said)), 3),
        }
    return found


def plain(text: str) -> str:
    """Without articles: one that is shorter than a frame gives its place to the next word."""
    return f" {' '.join(word for word in text.split() if word not in ('the', 'a'))} "


def put(question: Spoken) -> tuple[np.ndarray, float]:
    """The user's channel with the question in it, pauses of 0.6 s; and when it is over."""
    pcm, now = np.zeros(FRAMES * FRAME, np.float32), LEAD_FRAMES * FRAME
    for takes in question.parts:
        sound = takes[0].pcm
        pcm[now : now + sound.size] = sound
        now += sound.size + round(0.6 * SAMPLE_RATE)
    return pcm, now / SAMPLE_RATE - 0.6


def main(argv: Sequence[str] | None = None) -> int:
    """Asks with the options given by flags; returns 0."""
    tyro.cli(Answers, args=argv, description=__doc__).run()
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m recipes.nano.answers", main))
