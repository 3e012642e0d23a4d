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

    def encode_strictly(self, text: str) -> list[int]:
        """Ids of `text`, all of which the model knows.

        Raises:
          ValueError: naming what the vocabulary has no piece for (its id would mean something else
            to the model: that of an unknown piece is EPAD).
        """
        ids = self.encode(text)
        unknown = self._model.unk_id()
        if unknown in ids:
            pieces = self._model.EncodeAsPieces(text)
            lost = [piece for piece, token in zip(pieces, ids, strict=True) if token == unknown]
            raise ValueError(
                f"the tokenizer cannot hold {', '.join(map(repr, lost))} of {text!r}, expected "
                f"text in its {self.vocabulary} pieces; leave that out or spell it otherwise"
            )
        return ids

    def piece(self, token: int) -> str:
        """What a token adds to the transcript: nothing for padding, else its piece with spaces."""
        if token in (EPAD, PAD) or not 0 <= token < self.vocabulary:
            return ""
        return self._model.IdToPiece(token).replace("▁", " ")
