"""The text pieces of the nano model: SentencePiece, trained on the repertoire itself."""

from __future__ import annotations

import io
import string
from pathlib import Path

from helium_jax.text import BOS, EOS, EPAD, PAD
from layers_jax import atomic_path
from moshi_jax.nano.sentences import LINES, words

__all__ = ["train_tokenizer"]


def train_tokenizer(path: Path) -> Path:
    """Writes a model in which every word of the repertoire is one piece, and letters spell others.

    Text is taken as it is: no table of normalisation, which would be most of the file.
    """
    import sentencepiece

    of_words = [f"▁{word}" for word in words()]
    letters = [*string.ascii_lowercase, "▁"]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line.text for line in LINES] + letters[:-1]),
        model_writer=model,
        model_type="unigram",
        vocab_size=4 + len(of_words) + len(letters),
        hard_vocab_limit=False,
        user_defined_symbols=of_words,
        character_coverage=1.0,
        normalization_rule_name="identity",
        unk_id=EPAD,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=PAD,
        num_threads=1,
        minloglevel=2,
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.getvalue())
    return path
