"""Text tokens: SentencePiece pieces, and four ids that are not words."""

from pathlib import Path

EPAD, BOS, EOS, PAD = 0, 1, 2, 3


class TextTokenizer:
    """The checkpoint's SentencePiece model."""

    def __init__(self, path: str | Path):
        """Reads the model.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: it is not a SentencePiece model.
        """
        try:
            import sentencepiece
        except ImportError as error:
            raise ValueError(
                "text needs sentencepiece, which is not installed; "
                "run: pip install 'moshi-jax[audio]'"
            ) from error
        if not Path(path).is_file():
            raise FileNotFoundError(f"tokenizer {path} is missing, expected a SentencePiece model")
        self._model = sentencepiece.SentencePieceProcessor()
        try:
            self._model.Load(str(path))
        except (OSError, RuntimeError) as error:
            raise ValueError(f"tokenizer {path} is not a SentencePiece model: {error}") from error

    @property
    def vocabulary(self) -> int:
        """Number of pieces."""
        return self._model.GetPieceSize()

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without begin or end marks."""
        return self._model.EncodeAsIds(text)

    def piece(self, token: int) -> str:
        """What a token adds to the transcript: nothing for padding, else its piece with spaces."""
        if token in (EPAD, PAD) or not 0 <= token < self.vocabulary:
            return ""
        return self._model.IdToPiece(token).replace("▁", " ")
