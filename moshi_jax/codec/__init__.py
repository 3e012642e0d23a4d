"""`moshi-jax codec`: audio files to codes and back, alone or by the folder."""

from moshi_jax.codec.command import main

__all__ = ["main"]
