"""Corpus `stereo`: a recording, or a folder of them, with one speaker on each channel."""

from __future__ import annotations

from pathlib import Path

from grpo.corpora.pcm import AudioRef
from grpo.corpora.recording import Listing, Recording

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".au", ".sph")


def list_stereo(source: Path) -> Listing:
    """Every audio file below `source`, named by its path from there; other files are no audio.

    Raises:
        FileNotFoundError: nothing there, or no audio file in the folder.
    """
    if source.is_file():
        return Listing(recordings=[stereo_recording(source.name, source)])
    if not source.is_dir():
        raise FileNotFoundError(
            f"cannot read {source}: got nothing there, expected an audio file or a folder of them;"
            " check the path"
        )
    paths = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()
    )
    if not paths:
        raise FileNotFoundError(
            f"cannot extract from {source}: got no audio file, expected some of"
            f" {', '.join(AUDIO_SUFFIXES)}; check the folder"
        )
    return Listing(
        recordings=[stereo_recording(path.relative_to(source).as_posix(), path) for path in paths]
    )


def stereo_recording(name: str, path: Path, **about: object) -> Recording:
    """A recording whose two channels lie in one file."""
    ref = AudioRef(path)
    return Recording(name=name, channels=((ref, 0), (ref, 1)), **about)  # pyrefly: ignore
