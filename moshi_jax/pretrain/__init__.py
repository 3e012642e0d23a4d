"""Supervised training on two-channel recordings with transcripts: pre-training and fine-tuning."""

from moshi_jax.pretrain.command import main
from moshi_jax.pretrain.config import PretrainConfig
from moshi_jax.pretrain.encode import EncodeConfig, encode_corpus
from moshi_jax.pretrain.train import PretrainResult, pretrain

__all__ = ["EncodeConfig", "PretrainConfig", "PretrainResult", "encode_corpus", "main", "pretrain"]
