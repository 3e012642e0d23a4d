"""Mimi: Kyutai's streaming speech codec (arXiv 2410.00037), 24 kHz to 12.5 frames a second."""

from mimi_jax.audio_file import check_target, read_audio, resample, write_audio
from mimi_jax.blocks import BlockCodec
from mimi_jax.codec import Mode, decode, decode_step, encode, encode_step, init_state
from mimi_jax.config import MimiConfig, QuantizerConfig, SeanetConfig, mimi_24khz, nano
from mimi_jax.model import Mimi
from mimi_jax.state import MimiState
from mimi_jax.state_file import load_state, save_state
from mimi_jax.trainable import trainable

__all__ = [
    "BlockCodec",
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
    "load_state",
    "mimi_24khz",
    "nano",
    "read_audio",
    "resample",
    "save_state",
    "trainable",
    "write_audio",
]
