"""Two minutes of two-channel conversation with known times, made by `make_conversation.py`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["conversation_path"]


def conversation_path() -> Path:
    """The stereo FLAC: 24 kHz, left = agent, right = user; the .json beside it has the times."""
    return Path(str(files(__name__) / "conversation.flac"))
