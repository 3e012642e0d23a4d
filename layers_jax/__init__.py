"""Blocks that the codec and the language model share; nothing here knows about either."""

from layers_jax.attention import RingCache, ring_positions
from layers_jax.conv import CausalConv1d, CausalConvTranspose1d
from layers_jax.files import atomic_path
from layers_jax.functional import bind, split
from layers_jax.linear import Embedding, Linear, LowRankEmbedding, quantize_matrices
from layers_jax.lora import LoraConfig, fuse, merge_adapters, split_adapters
from layers_jax.norm import LayerNorm, LayerScale, RMSNorm
from layers_jax.precision import Precision
from layers_jax.state import masked_update, reset_rows, select_rows
from layers_jax.transformer import Transformer, TransformerConfig, stack_layers, unstack_layers

__all__ = [
    "CausalConv1d",
    "CausalConvTranspose1d",
    "Embedding",
    "LayerNorm",
    "LayerScale",
    "Linear",
    "LoraConfig",
    "LowRankEmbedding",
    "Precision",
    "RMSNorm",
    "RingCache",
    "Transformer",
    "TransformerConfig",
    "atomic_path",
    "bind",
    "fuse",
    "masked_update",
    "merge_adapters",
    "quantize_matrices",
    "reset_rows",
    "ring_positions",
    "select_rows",
    "split",
    "split_adapters",
    "stack_layers",
    "unstack_layers",
]
