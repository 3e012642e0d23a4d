"""Checkpoints in and out: PyTorch releases to our parameter trees and back, bit for bit."""

from convert.checkpoint import Checkpoint, read_configs
from convert.errors import ConversionError
from convert.export import ReleaseOptions, export_mimi, export_moshi, to_torch
from convert.folders import to_jax
from convert.fuse import fuse_lora
from convert.inspect import Inspection, inspect
from convert.load import load_mimi, load_moshi, params_from_tensors
from convert.lora import export_lora, load_lora, lora_from_tensors
from convert.verify import Comparison, Difference, compare
from convert.voices import Voice, load_voice, voice_names

__all__ = [
    "Checkpoint",
    "Comparison",
    "ConversionError",
    "Difference",
    "Inspection",
    "ReleaseOptions",
    "Voice",
    "compare",
    "export_lora",
    "export_mimi",
    "export_moshi",
    "fuse_lora",
    "inspect",
    "load_lora",
    "load_mimi",
    "load_moshi",
    "load_voice",
    "lora_from_tensors",
    "params_from_tensors",
    "read_configs",
    "to_jax",
    "to_torch",
    "voice_names",
]
