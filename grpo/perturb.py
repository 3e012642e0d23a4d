"""Perturbations of the user's channel: drawn for training, at fixed levels for a robustness grid.

All rollouts of a group hear the same. What is drawn depends on seed and group alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from grpo import sounds
from mimi_jax import Mimi, decode, encode

Pcm = Float32[np.ndarray, " S"]
Codec = Callable[[Pcm, int], Pcm]
"""Audio to codes and back, through so many codebooks."""

_LENGTH_FRAMES = 64
_STREAM = 0x7065  # keeps these draws apart from those of segments


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """One kind.

    Attributes:
        unit: of the level.
        low: mildest level that is drawn.
        high: harshest.
        grid: levels of the robustness grid, from mild to harsh.
    """

    unit: str
    low: float
    high: float
    grid: tuple[float, ...]


# In the order a sound meets them: other voices, the room, noise, microphone, line, codec.
PERTURBATIONS: dict[str, Perturbation] = {
    "talker": Perturbation(unit="dB", low=-25, high=-10, grid=(-25, -20, -15, -10)),
    "reverb": Perturbation(unit="s", low=0.2, high=0.9, grid=(0.2, 0.5, 0.9)),
    "white": Perturbation(unit="dB SNR", low=30, high=0, grid=(30, 20, 10, 0)),
    "pink": Perturbation(unit="dB SNR", low=30, high=0, grid=(30, 20, 10, 0)),
    "hum": Perturbation(unit="dB SNR", low=30, high=0, grid=(30, 20, 10, 0)),
    "gain": Perturbation(unit="dB", low=-20, high=20, grid=(-20, -10, 10, 20)),
    "clipping": Perturbation(unit="dB", low=-3, high=-20, grid=(-6, -12, -20)),
    "telephone": Perturbation(unit="bits", low=8, high=8, grid=(8, 6)),
    "loss": Perturbation(unit="of packets", low=0.01, high=0.2, grid=(0.02, 0.05, 0.1, 0.2)),
    "codec": Perturbation(unit="codebooks", low=8, high=1, grid=(8, 4, 2, 1)),
}

_SOUNDS: dict[str, Callable[[Pcm, float, np.random.Generator], Pcm]] = {
    "reverb": sounds.reverb,
    "white": sounds.white_noise,
    "pink": sounds.pink_noise,
    "hum": sounds.hum,
    "gain": sounds.gain,
    "clipping": sounds.clipping,
    "telephone": sounds.telephone,
    "loss": sounds.packet_loss,
}


@dataclass(frozen=True, kw_only=True)
class PerturbConfig:
    """What is done to the user's audio of a group; nothing by default."""

    probability: float = 0.0
    """How often a group is perturbed, at the end of the ramp."""
    ramp_steps: int = 1
    """Steps over which the probability grows from 0, linearly; 1: it is there from the start."""
    kinds: tuple[str, ...] = tuple(name for name in PERTURBATIONS if name != "codec")
    """What is drawn from; "codec" costs a pass through Mimi."""
    max_kinds: int = 2
    """So many different ones at most at a time, each number equally often."""
    level: float | None = None
    """Fixes the level (of a single kind) instead of drawing it."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability: got {self.probability}, expected 0 to 1")
        if self.ramp_steps < 1:
            raise ValueError(f"ramp_steps: got {self.ramp_steps}, expected at least 1")
        if not self.kinds or not set(self.kinds) <= set(PERTURBATIONS):
            raise ValueError(
                f"kinds: got {self.kinds}, expected one or more of {', '.join(PERTURBATIONS)}"
            )
        if self.max_kinds < 1:
            raise ValueError(f"max_kinds: got {self.max_kinds}, expected at least 1")
        if self.level is not None and len(self.kinds) != 1:
            raise ValueError(f"level: got {len(self.kinds)} kinds, expected one for a fixed level")

    def needs_codec(self) -> bool:
        """Whether a codec has to be at hand."""
        return self.probability > 0 and "codec" in self.kinds


def perturb(
    pcm: Pcm,
    config: PerturbConfig,
    *,
    index: int,
    step: int,
    other: Callable[[np.random.Generator], Pcm],
    codec: Codec | None = None,
) -> tuple[Pcm, dict[str, float]]:
    """The audio of one group, perturbed or not; the label times of the clean audio stay true.

    Args:
        pcm: 24 kHz.
        config: what is drawn.
        index: of the group; the draws depend on it and the seed alone.
        step: of the run, for the ramp.
        other: draws speech of somebody else.
        codec: of `codec_trip`; only asked for by the kind "codec".

    Returns:
        Audio of the same length, and the kinds that were applied with their levels.

    Raises:
        ValueError: "codec" was drawn without a codec.
    """
    rng = np.random.default_rng([config.seed, _STREAM, index])
    ramp = 1.0 if config.ramp_steps == 1 else min(1.0, step / (config.ramp_steps - 1))
    if rng.random() >= config.probability * ramp:
        return pcm, {}
    count = int(rng.integers(1, min(config.max_kinds, len(config.kinds)) + 1))
    drawn = set(rng.choice(len(config.kinds), count, replace=False).tolist())
    names = {config.kinds[number] for number in drawn}
    applied: dict[str, float] = {}
    for name, kind in PERTURBATIONS.items():
        if name not in names:
            continue
        level = config.level
        if level is None:
            level = float(rng.uniform(min(kind.low, kind.high), max(kind.low, kind.high)))
        if name == "talker":
            pcm = sounds.talker(pcm, level, rng, other(rng))
        elif name == "codec":
            if codec is None:
                raise ValueError("codec: got none, expected one for the perturbation 'codec'")
            level = float(round(level))
            pcm = codec(pcm, int(level))
        else:
            pcm = _SOUNDS[name](pcm, level, rng)
        applied[name] = level
    return pcm, applied


def robustness_grid(kinds: tuple[str, ...] = tuple(PERTURBATIONS)) -> dict[str, PerturbConfig]:
    """Clean audio, then every level of every kind, by a name such as "white 20 dB SNR".

    Raises:
        ValueError: an unknown kind.
    """
    grid = {"clean": PerturbConfig()}
    for name in kinds:
        if name not in PERTURBATIONS:
            raise ValueError(f"kind: got {name!r}, expected one of {', '.join(PERTURBATIONS)}")
        kind = PERTURBATIONS[name]
        for level in kind.grid:
            grid[f"{name} {level:g} {kind.unit}"] = PerturbConfig(
                probability=1.0, kinds=(name,), level=level
            )
    return grid


def codec_trip(mimi: Mimi, params: Any) -> Codec:
    """Audio through Mimi and back, as it comes out of a call with so many codebooks.

    Compiled once for every five seconds of length, whatever the number of codebooks.
    """
    step = _LENGTH_FRAMES * mimi.config.frame_samples

    @jax.jit
    def trip(params: Any, pcm: Float32[Array, "1 S"], codebooks: Int[Array, ""]) -> Any:
        codes = encode(mimi, params, pcm)
        # A code outside its codebook adds nothing.
        kept = jnp.where(jnp.arange(codes.shape[1])[:, None] < codebooks, codes, -1)
        return decode(mimi, params, kept)

    def codec(pcm: Pcm, codebooks: int) -> Pcm:
        if not 1 <= codebooks <= mimi.config.num_codebooks:
            raise ValueError(
                f"codebooks: got {codebooks}, expected 1 to {mimi.config.num_codebooks}"
            )
        # The codec is causal: silence behind changes nothing before it.
        padded = np.pad(pcm, (0, -len(pcm) % step))
        heard = trip(params, jnp.asarray(padded[None]), jnp.asarray(codebooks))
        return np.asarray(heard[0, : len(pcm)], np.float32)

    return codec
