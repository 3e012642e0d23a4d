"""What the codec remembers between frames, a row a session."""

from dataclasses import dataclass

import jax

from layers_jax import RingCache


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CodecState:
    """State of one half (encoder or decoder); every leaf has the batch as first axis."""

    offset: jax.Array  # [B] int32, latent columns seen
    histories: list[jax.Array]  # of the SEANet convolutions, [B, P, C] each
    resample: jax.Array  # [B, P, D], history or overhang between transformer and quantizer
    caches: list[RingCache]  # a layer each


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MimiState:
    """State of a codec session. The halves have clocks of their own: either may be masked alone."""

    encoder: CodecState
    decoder: CodecState
