"""Parakeet TDT through onnx-asr: the recognizer of real runs (extra `parakeet`, weights by hub)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from rewards.asr.protocol import SAMPLE_RATE, Transcript, Word

_WORD_START = "\u2581"
_LAST_TOKEN_S = 0.08  # a frame of the encoder: token times are onsets


class Parakeet:
    """nemo-parakeet-tdt-0.6b-v2 (CC BY 4.0) in onnxruntime, on the device that it finds.

    Args:
        model: the name that onnx-asr knows.
        folder: where its files are; None fetches them from the hub.
        quantization: "int8" for the smaller files.

    Raises:
        ImportError: onnx-asr is not installed.
    """

    def __init__(
        self,
        model: str = "nemo-parakeet-tdt-0.6b-v2",
        folder: Path | None = None,
        quantization: str | None = None,
    ) -> None:
        try:
            import onnx_asr
        except ImportError as error:
            raise ImportError(
                "Parakeet needs onnx-asr: pip install 'moshi-jax[parakeet]'"
            ) from error
        self.name = model
        self.version = quantization or "float32"
        loaded = onnx_asr.load_model(model, folder, quantization=quantization)
        self._model = loaded.with_timestamps()

    def transcribe(self, batch: Sequence[Float32[np.ndarray, "..."]]) -> list[Transcript | None]:
        """See `Recognizer.transcribe`; the clips are one batch of the encoder."""
        results = self._model.recognize(list(batch), sample_rate=SAMPLE_RATE)
        return [
            Transcript(
                " ".join(result.text.split()),
                join_tokens(result.tokens, result.timestamps),
                float(np.mean(result.logprobs)) if result.logprobs else None,
            )
            for result in results
        ]


def join_tokens(
    tokens: Sequence[str] | None, onsets_s: Sequence[float] | None
) -> tuple[Word, ...] | None:
    """Words of sub-word tokens: a word ends where its successor begins, the last one a frame later.

    Args:
        tokens: a word starts with a space, or with the sign that SentencePiece writes for it.
        onsets_s: of each token.

    Returns:
        None where there are no times.
    """
    if tokens is None or onsets_s is None:
        return None
    words: list[tuple[str, float, float]] = []
    for token, onset_s in zip(tokens, onsets_s, strict=True):
        text = token.replace(_WORD_START, " ")
        if not words or text.startswith(" "):
            words.append((text.strip(), float(onset_s), float(onset_s) + _LAST_TOKEN_S))
        else:
            before, start_s, _ = words[-1]
            words[-1] = (before + text, start_s, float(onset_s) + _LAST_TOKEN_S)
    return tuple(Word(text, start_s, end_s) for text, start_s, end_s in words if text)
