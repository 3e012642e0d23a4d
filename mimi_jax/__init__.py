"""Mimi: Kyutai's streaming speech codec (arXiv 2410.00037), 24 kHz to 12.5 frames a second."""

from mimi_jax.audio_file import check_target, read_audio, resample, write_audio
from mimi_jax.codec import Mode, decode, decode_step, encode, encode_step, init_state
from mimi_jax.config import MimiConfig, QuantizerConfig, SeanetConfig, mimi_24khz, nano
from mimi_jax.model import Mimi
from mimi_jax.state import MimiState

__all__ = [
    "Mimi",
    "MimiConfig",
    "MimiState",
    "Mode",
    "QuantizerConfig",
    "SeanetConfig",
    "check_target",
    "decode",
    "decode_step",
    "encode",
    "encode_step",
    "init_state",
    "mimi_24khz",
    "nano",
    "read_audio",
    "resample",
    "write_audio",
]
