"""A checkpoint that compiles in seconds, and recordings with words in moshi-finetune's layout."""

import json

import numpy as np
import pytest
import sentencepiece

from mimi_jax import write_audio
from moshi_jax.pretrain import EncodeConfig, encode_corpus
from tests.grpo.conftest import small, small_checkpoint  # noqa: F401  (fixtures)

RATE = 24_000


@pytest.fixture(scope="session")
def checkpoint(small_checkpoint):  # noqa: F811
    """With a tokenizer of seven letters and spaces: 11 pieces, PAD is 3."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["ab ba", "abc cab defg", "gfed abcdefg"] * 4),
        model_prefix=str(small_checkpoint / "letters"),
        model_type="char",
        vocab_size=11,
        hard_vocab_limit=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    (small_checkpoint / "letters.model").replace(small_checkpoint / "tokenizer.model")
    return small_checkpoint


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Three recordings of 60, 40 and 12 ms (frames of 1 ms) and two that cannot be used."""
    folder, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    lines = []
    for name, samples in (("one", 1440), ("two", 950), ("three", 288), ("mute", 240), ("odd", 240)):
        pcm = rng.uniform(-0.5, 0.5, (2, samples)).astype(np.float32)
        write_audio(folder / f"{name}.wav", pcm, RATE)
        lines.append(json.dumps({"path": f"{name}.wav", "duration": samples / RATE}))
        words = [["abc", [0.002, 0.004], "SPEAKER_MAIN"], ["user", [0.0, 0.001], "SPEAKER_1"]]
        if name == "odd":
            words.append(["xyz", [0.005, 0.006], "SPEAKER_MAIN"])
        if name != "mute":
            (folder / f"{name}.json").write_text(json.dumps({"alignments": words}))
    (folder / "data.jsonl").write_text("\n".join(lines))
    return folder / "data.jsonl"


@pytest.fixture(scope="session")
def tokens(corpus, checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens") / "train"
    encode_corpus(
        EncodeConfig(source=corpus, destination=folder, checkpoint=checkpoint, shard_recordings=2)
    )
    return folder
