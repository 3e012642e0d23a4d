"""A codec small enough to compile in seconds, and the one that the reference was recorded with."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from mimi_jax import (
    Mimi,
    MimiConfig,
    QuantizerConfig,
    SeanetConfig,
    decode_step,
    encode_step,
    nano,
)


@dataclass(frozen=True)
class Codec:
    """Definition and parameters."""

    mimi: Mimi
    params: Any

    @property
    def config(self) -> MimiConfig:
        return self.mimi.config

    def compiled(self, function: Callable, **options: Any) -> Callable:
        """`function(mimi, params, ...)` as one program, without its first two arguments."""
        run = jax.jit(lambda params, *rest: function(self.mimi, params, *rest), **options)
        return lambda *rest: run(self.params, *rest)


@pytest.fixture(scope="session")
def small(random_module) -> Codec:
    """Frames of 8 samples, two latent columns each; a window of 6 columns, 3 of 4 codebooks."""
    config = MimiConfig(
        sample_rate=100,
        seanet=SeanetConfig(dimension=8, n_filters=2, ratios=(2, 2)),
        quantizer=QuantizerConfig(dimension=4, n_q=4, bins=7),
        transformer=dataclasses.replace(
            nano().transformer, dim=8, num_heads=2, num_layers=1, hidden=12, context=6
        ),
        num_codebooks=3,
    )
    return Codec(*random_module(lambda: Mimi(config, rngs=nnx.Rngs(0))))


@pytest.fixture(scope="session")
def small_frame(small: Codec) -> Callable[..., Any]:
    """`small_frame(state, pcm, codes, mask) -> state, codes, pcm` for two rows; takes the state.

    Encodes a frame and decodes other codes, in one program.
    """

    def frame(mimi: Mimi, params: Any, state: Any, pcm: Any, codes: Any, mask: Any) -> Any:
        state, encoded = encode_step(mimi, params, state, pcm, mask)
        state, audio = decode_step(mimi, params, state, codes, mask)
        return state, encoded, audio

    return small.compiled(frame, donate_argnums=1)


@pytest.fixture(scope="session")
def recorded(golden) -> Callable[[str], tuple[Codec, dict[str, np.ndarray]]]:
    """`recorded(name)`: the recording's codec with the ring rule of what ran, and its tensors."""
    from convert import params_from_tensors
    from layers_jax.functional import abstract

    def load(name: str) -> tuple[Codec, dict[str, np.ndarray]]:
        config, tensors, weights = golden(name)
        ring = "personaplex" if "personaplex" in name else "kyutai"
        config = MimiConfig.from_dict(config, num_codebooks=8, ring=ring)
        mimi = abstract(lambda: Mimi(config, rngs=nnx.Rngs(0)))
        return Codec(mimi, params_from_tensors(config, weights)), tensors

    return load
