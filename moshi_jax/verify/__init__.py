"""Recorded runs of the PyTorch references, repeated on whatever device is attached here."""

from moshi_jax.verify.command import main

__all__ = ["main"]
