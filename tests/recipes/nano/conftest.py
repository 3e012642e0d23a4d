"""A bank of two speakers who hum, and a codec of a few thousand parameters."""

import numpy as np
import pytest

from layers_jax import TransformerConfig
from mimi_jax import MimiConfig, QuantizerConfig, SeanetConfig
from moshi_jax.nano.bank import SAMPLE_RATE, Bank, Recording, Timed


def hum(speaker, pitch_hz, seconds):
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pcm = sum(0.05 / k * np.cos(2 * np.pi * k * pitch_hz * times) for k in (1, 2, 3))
    middle = seconds / 2
    return Recording(
        speaker=speaker, text="la mm", ending="fall", kind="answer", split="train", variant=0,
        pcm=pcm.astype(np.float32),
        words=(Timed("la", 0.0, middle), Timed("mm", middle, seconds)),
        phones=(Timed("l", 0.0, 0.1), Timed("ae", 0.1, middle), Timed("m", middle, seconds)),
    )  # fmt: skip


@pytest.fixture(scope="package")
def humming():
    return Bank((hum("agent", 200.0, 0.8), hum("agent", 400.0, 0.4), hum("user", 130.0, 0.6)))


@pytest.fixture(scope="package")
def toy_codec():
    return MimiConfig(
        seanet=SeanetConfig(dimension=16, n_filters=2),
        quantizer=QuantizerConfig(dimension=8, n_q=3, bins=8),
        transformer=TransformerConfig(
            dim=16, num_heads=2, num_layers=1, hidden=16, context=8, norm="layer", mlp="gelu",
            layer_scale=0.1,
        ),
        num_codebooks=3,
    )  # fmt: skip
