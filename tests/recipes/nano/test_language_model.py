"""The start of the language model: pieces, shape, and a folder that the converter loads."""

import json

import pytest

from convert import load_mimi, load_moshi, read_configs
from helium_jax import TextTokenizer
from mimi_jax import MimiConfig
from moshi_jax.nano.sentences import words
from recipes.nano.language_model import LanguageModelRecipe, nano_moshi, write_untrained
from recipes.nano.tokenizer import train_tokenizer


def test_every_word_is_one_piece_and_other_words_can_be_spelled(tmp_path):
    path = train_tokenizer(tmp_path / "nano.model")
    tokenizer = TextTokenizer(path)
    assert path.stat().st_size < 30_000
    ids = [tokenizer.encode_strictly(word) for word in words()]
    assert {len(one) for one in ids} == {1} and len({one[0] for one in ids}) == len(ids)
    assert min(one[0] for one in ids) > 3  # 0 to 3 are EPAD, BOS, EOS, PAD
    spelled = tokenizer.encode_strictly("zyx two")
    assert "".join(map(tokenizer.piece, spelled)) == " zyx two"


def test_the_shape_has_all_streams_and_fits_into_9_megabytes(tiny_checkpoint):
    codec = MimiConfig.from_dict(json.loads((tiny_checkpoint / "mimi_config.json").read_text()))
    config = nano_moshi(codec, 151, codebooks=4)
    assert config.delays == (0, 0, 1, 1, 1, 0, 1, 1, 1)
    assert (config.num_agent_codebooks, config.num_user_codebooks) == (4, 4)
    assert config.card == codec.quantizer.bins


def test_the_untrained_folder_is_a_checkpoint(tiny_checkpoint, tmp_path):
    codec = tmp_path / "codec"
    codec.mkdir()
    for name in ("mimi_config.json", "tokenizer-tiny-mimi.safetensors"):
        (codec / name).write_bytes((tiny_checkpoint / name).read_bytes())
    recipe = LanguageModelRecipe(codec=codec, folder=tmp_path / "lm", codebooks=2)
    write_untrained(recipe, tmp_path / "start")
    lm, _ = load_moshi(tmp_path / "start")
    mimi, _ = load_mimi(tmp_path / "start")
    assert lm.config.n_q == 4 and mimi.config.num_codebooks == 2
    assert (
        TextTokenizer(read_configs(tmp_path / "start").tokenizer).vocabulary == lm.config.text_card
    )
    assert (tmp_path / "start" / "model.safetensors").stat().st_size < 9_000_000


def test_a_folder_without_a_codec_is_named(tmp_path):
    recipe = LanguageModelRecipe(codec=tmp_path, folder=tmp_path / "lm")
    with pytest.raises(FileNotFoundError, match=r"0 .safetensors file.*recipes.nano.codec"):
        write_untrained(recipe, tmp_path / "start")
