"""Models by name, as benchmarks build them: shapes only, weights are random."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import helium_jax
import mimi_jax
from helium_jax import MoshiConfig
from mimi_jax import MimiConfig

__all__ = ["PRESETS", "Preset", "preset"]


@dataclass(frozen=True)
class Preset:
    """A codec and a language model that fit each other."""

    lm: MoshiConfig
    mimi: MimiConfig


def _full(lm: MoshiConfig) -> Preset:
    return Preset(lm, mimi_jax.mimi_24khz(lm.num_user_codebooks))


def _eighth() -> Preset:
    """An eighth of every width of Moshi 7B, its number of layers: what one CPU core can run."""
    full = helium_jax.moshi_7b()
    lm = replace(
        full,
        dim=512,
        num_heads=4,
        text_card=4000,
        depformer_dim=128,
        depformer_dim_feedforward=528,
        depformer_num_heads=2,
    )
    codec = mimi_jax.mimi_24khz(8)
    mimi = replace(
        codec,
        seanet=replace(codec.seanet, dimension=64, n_filters=8),
        quantizer=replace(codec.quantizer, dimension=32),
        transformer=replace(codec.transformer, dim=64, num_heads=1, hidden=256),
    )
    return Preset(lm, mimi)


def _narrow(dim: int, layers: int, depth_dim: int, depth_layers: int) -> Preset:
    """Moshi between the eighth and the whole, for comparisons with PyTorch on a CPU."""
    lm = replace(
        helium_jax.moshi_7b(),
        dim=dim,
        num_layers=layers,
        num_heads=dim // 64,
        depformer_dim=depth_dim,
        depformer_dim_feedforward=int(4.125 * depth_dim),
        depformer_num_heads=depth_dim // 64,
        depformer_num_layers=depth_layers,
        text_card=4000,
        context=250,
    )
    return Preset(lm, mimi_jax.mimi_24khz(8))


PRESETS: dict[str, Callable[[], Preset]] = {
    "moshi-7b": lambda: _full(helium_jax.moshi_7b()),
    "personaplex-7b": lambda: _full(helium_jax.personaplex_7b()),
    "moshi-eighth": _eighth,
    "moshi-d512x8": lambda: _narrow(512, 8, 256, 4),
    "moshi-d1024x16": lambda: _narrow(1024, 16, 512, 6),
    "nano": lambda: Preset(helium_jax.nano(), replace(mimi_jax.nano(), num_codebooks=8)),
}


def preset(name: str) -> Preset:
    """The model called `name`.

    Raises:
      ValueError: there is no such model.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}, expected one of {', '.join(PRESETS)}")
    return PRESETS[name]()
