"""The embedded checkpoint: small, complete, and the same model in PyTorch."""

from importlib.resources import files
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import load_mimi, load_moshi, read_configs
from helium_jax import TextTokenizer, forward, token_loss
from layers_jax import Precision
from mimi_jax import encode
from moshi_jax.demo.exported import stream_tokens
from moshi_jax.nano.bank import read_bank
from moshi_jax.nano.conversations import AGENT, USER, Voices, compose
from moshi_jax.nano.sentences import words
from moshi_jax.pretrain.interleaver import text_stream

FOLDER = Path(str(files("moshi_jax.nano")))


def test_the_folder_is_complete_and_small():
    checkpoint = read_configs(FOLDER)
    assert all(path.is_file() for path in checkpoint.files.values() if path is not None)
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 20_000_000
    assert load_moshi(FOLDER)[0].config.dim == checkpoint.lm.dim
    tokenizer = TextTokenizer(checkpoint.tokenizer)
    assert tokenizer.vocabulary == checkpoint.lm.text_card
    assert all(len(tokenizer.encode_strictly(word)) == 1 for word in words())


def test_it_expects_what_is_said_in_conversations_it_was_not_trained_on():
    """An untrained model needs 5 nats for each of these words and 5.5 for each code."""
    conversation = compose(Voices(read_bank(), "heldout"), (3, 0), seconds=20.0)
    lm, params = load_moshi(FOLDER, precision=Precision.f32())
    mimi, mimi_params = load_mimi(FOLDER)
    tokenizer = TextTokenizer(read_configs(FOLDER).tokenizer)
    codes = np.asarray(jax.jit(lambda pcm: encode(mimi, mimi_params, pcm))(conversation.pcm))
    text = text_stream(conversation.words[AGENT], codes.shape[2], tokenizer.encode_strictly)
    streams = jnp.asarray(np.concatenate([text[None], *codes])[None])

    @jax.jit
    def loss(params):
        return token_loss(lm.config, forward(lm, params, streams), streams, text_padding_weight=0.0)

    terms = loss(params)
    assert terms.text.weight > 15
    assert terms.text.mean() < 1.5 and terms.audio.mean() < 0.5


@pytest.mark.slow
@pytest.mark.parity
def test_pytorch_loads_the_folder_unchanged_and_gives_the_same_tokens(tokens_in_pytorch):
    """On held-out lines of the user."""
    user_pcm = compose(Voices(read_bank(), "heldout"), (3, 0), seconds=10.0).pcm[USER]
    ours, theirs = stream_tokens(FOLDER, None, user_pcm), tokens_in_pytorch(FOLDER, user_pcm)
    np.testing.assert_array_equal(ours, theirs)
