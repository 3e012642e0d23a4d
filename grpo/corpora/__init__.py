"""Two-channel corpora: what lies where, read piece by piece.

A reader is a function from a path to a `Listing`; a new one is a file here and a line in `CORPORA`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from grpo.corpora.candor import list_candor
from grpo.corpora.fisher import list_fisher
from grpo.corpora.moshi_finetune import list_moshi_finetune
from grpo.corpora.pcm import AudioRef, open_pcm
from grpo.corpora.recording import BadFile, Listing, Recording, TwoChannelPcm, Word
from grpo.corpora.seamless import list_seamless
from grpo.corpora.stereo import list_stereo

Corpus = Literal["stereo", "moshi-finetune", "fisher", "seamless", "candor"]

CORPORA: dict[Corpus, Callable[[Path], Listing]] = {
    "stereo": list_stereo,
    "moshi-finetune": list_moshi_finetune,
    "fisher": list_fisher,
    "seamless": list_seamless,
    "candor": list_candor,
}

__all__ = [
    "CORPORA",
    "AudioRef",
    "BadFile",
    "Corpus",
    "Listing",
    "Recording",
    "TwoChannelPcm",
    "Word",
    "open_pcm",
]
