"""From the configuration of a run to its recognizer."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from rewards.asr.protocol import Recognizer
from rewards.checks import require_one_of


@dataclass(frozen=True, kw_only=True)
class AsrConfig:
    """Which recognizer; none unless one is named.

    Raises:
        ValueError: a value out of its range, or a remote one without URL and model.
    """

    kind: Literal["none", "parakeet", "remote", "packaged", "text_stream"] = "none"
    """ "packaged" is a tiny one for tests and demos; "text_stream" takes the model's own text for
    what it said: for a model whose voice no recognizer understands, and for smoke tests."""
    url: str | None = None
    """Base URL of a "remote" one, up to and with `/v1`."""
    model: str | None = None
    """Its name there, or the one that onnx-asr knows ("parakeet")."""
    folder: Path | None = None
    """Where the files of "parakeet" are; none fetches them from the hub."""
    workers: int = 0
    """Processes of a local one; 0 runs it in this process."""
    cache: Path | None = None
    """sqlite file of the transcripts; none keeps them for this process only."""

    def __post_init__(self) -> None:
        require_one_of(self, "kind", ("none", "parakeet", "remote", "packaged", "text_stream"))
        if self.kind == "remote" and not (self.url and self.model):
            raise ValueError("AsrConfig.kind is 'remote', expected a url and a model with it")
        if self.workers < 0:
            raise ValueError(f"AsrConfig.workers is {self.workers}, expected 0 or more")


def open_recognizer(config: AsrConfig) -> Recognizer | None:
    """The recognizer that a run asked for; None for "none" and "text_stream", which hear nothing.

    Raises:
        ImportError: what it needs is not installed; it says what to install.
    """
    if config.kind in ("none", "text_stream"):
        return None
    if config.kind == "remote":
        from rewards.asr.remote import RemoteRecognizer

        assert config.url is not None and config.model is not None
        return RemoteRecognizer(config.url, config.model)
    if config.kind == "packaged":
        from rewards.asr.packaged import PackagedWhisper

        make, name, version = PackagedWhisper, PackagedWhisper.name, PackagedWhisper.version
    else:
        from rewards.asr.parakeet import Parakeet

        name, version = config.model or "nemo-parakeet-tdt-0.6b-v2", "float32"
        make = partial(Parakeet, name, config.folder)
    if config.workers == 0:
        return make()
    from rewards.asr.pool import RecognizerPool

    return RecognizerPool(make, name=name, version=version, workers=config.workers)
