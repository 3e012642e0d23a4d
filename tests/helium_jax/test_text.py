import pytest

from helium_jax import TextTokenizer
from helium_jax.text import EPAD, PAD


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    pytest.importorskip("sentencepiece")
    return TextTokenizer(tiny_checkpoint / "tokenizer_spm_tiny.model")


def test_ids_are_those_of_the_reference(tokenizer, golden):
    examples = golden("checkpoint_moshi_tiny_e2e").provenance["tokenizer_examples"]
    assert len(examples) > 3
    for example in examples:
        assert tokenizer.encode(example["text"]) == example["ids"]


def test_pieces_are_those_the_references_server_sends(tokenizer, golden):
    """It sends nothing for padding and its end."""
    recording = golden("checkpoint_moshi_tiny_e2e")
    valid = recording.tensors["expected/valid"]
    tokens = recording.tensors["expected/out"][valid, 0]
    sent = recording.provenance["text_pieces"]
    assert [tokenizer.piece(int(token)) for token in tokens] == [piece or "" for piece in sent]


def test_what_is_no_word_adds_nothing(tokenizer):
    assert tokenizer.vocabulary > 200
    for token in (EPAD, PAD, -2, -1, tokenizer.vocabulary):
        assert tokenizer.piece(token) == ""


def test_a_missing_model_is_named(tmp_path):
    pytest.importorskip("sentencepiece")
    with pytest.raises(FileNotFoundError, match=r"nothing\.model is missing, expected a Sentence"):
        TextTokenizer(tmp_path / "nothing.model")


def test_another_file_is_no_model(tmp_path):
    pytest.importorskip("sentencepiece")
    (tmp_path / "notes.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"notes\.model is not a SentencePiece model"):
        TextTokenizer(tmp_path / "notes.model")


def test_without_sentencepiece_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    with pytest.raises(ValueError, match=r"run: pip install 'moshi-jax\[audio\]'"):
        TextTokenizer(tmp_path / "any.model")
