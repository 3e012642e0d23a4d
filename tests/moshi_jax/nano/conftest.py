"""The whole repertoire, said in bursts of noise as long as the words."""

import numpy as np
import pytest

from moshi_jax.nano.bank import SAMPLE_RATE, Bank, Recording, Timed
from moshi_jax.nano.sentences import LINES

LETTER_S = 0.065


def burst(line, text, ending, variant, rng):
    lengths = [len(word) + 1 for word in text.split()]
    edges = np.concatenate([[0], np.cumsum(lengths)]) * LETTER_S
    pcm = rng.uniform(0.01, 0.2, round(edges[-1] * SAMPLE_RATE)).astype(np.float32)
    words = map(Timed, text.split(), edges[:-1].tolist(), edges[1:].tolist())
    return Recording(
        speaker=line.speaker, text=text, ending=ending, kind=line.kind, split=line.split,
        variant=variant, pcm=pcm, words=tuple(words), phones=(),
    )  # fmt: skip


@pytest.fixture(scope="package")
def bank():
    rng = np.random.default_rng(0)
    parts = {
        (line.speaker, part, ending): line
        for line in LINES
        for part, ending in zip(line.parts, line.endings, strict=True)
    }
    return Bank(
        tuple(
            burst(line, part, ending, variant, rng)
            for (_, part, ending), line in parts.items()
            for variant in range(2)
        )
    )
