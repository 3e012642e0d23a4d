import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from helium_jax import Moshi
from layers_jax import Precision, bind
from layers_jax.functional import abstract


@pytest.mark.parametrize("name", ["lm_kyutai", "lm_rope_concat"])
def test_hidden_states_and_text_logits_are_those_of_the_reference(recorded, name):
    """All recorded calls at once, contexts long; then half-split rotations, shared key heads."""
    model, tensors = recorded(name)
    fed = tensors["expected/greedy/fed"][:, 0].T[None]
    assert fed.shape[2] > 2 * model.config.context

    def run(lm, params, fed):
        moshi = bind(lm, params)
        hidden = moshi.hidden(fed)
        return hidden, moshi.text_logits(hidden)

    hidden, logits = model.compiled(run)(fed)
    np.testing.assert_allclose(hidden[0], tensors["expected/greedy/hidden"][:, 0], atol=1e-4)
    np.testing.assert_allclose(logits[0], tensors["expected/greedy/text_logits"][:, 0], atol=1e-4)


def embed(lm, params, tokens):
    return bind(lm, params).embed(tokens)


def test_the_input_is_the_sum_of_all_streams_and_unknown_adds_nothing(small):
    tokens = np.array([[[13, 0], [11, -1], [0, 1], [3, 10], [-1, 11]]], np.int32)
    audio = np.asarray(small.params["audio_embedding"]["table"]).reshape(4, 12, 16)
    text = np.asarray(small.params["text_embedding"]["table"])
    expected = [
        audio[0, 11] + audio[1, 0] + audio[2, 3] + text[13],
        audio[1, 1] + audio[2, 10] + audio[3, 11] + text[0],
    ]
    np.testing.assert_allclose(small.compiled(embed)(tokens)[0], expected, atol=1e-5)


def test_in_bf16_the_audio_streams_are_added_in_order_and_text_last(kyutai):
    """Another order rounds otherwise, so bf16 runs would drift from the reference's."""
    model, _ = kyutai
    config = model.config
    lm = abstract(lambda: Moshi(config, precision=Precision.bf16(), rngs=nnx.Rngs(0)))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model.params)
    tokens = np.random.default_rng(0).integers(0, config.card, (1, config.num_streams, 30))
    got = jax.jit(lambda params, tokens: embed(lm, params, tokens))(params, jnp.asarray(tokens))

    table = np.asarray(params["audio_embedding"]["table"]).reshape(config.n_q, config.card + 1, -1)
    total = np.zeros((30, config.dim), ml_dtypes.bfloat16)
    for k in range(config.n_q):
        total = total + table[k][tokens[0, 1 + k]]
    total = total + np.asarray(params["text_embedding"]["table"])[tokens[0, 0]]
    assert total.dtype == got.dtype
    np.testing.assert_array_equal(np.asarray(got)[0], total)


def test_heads_cannot_say_the_initial_token_that_tables_have_a_row_for(small):
    shapes = jax.tree.map(lambda leaf: leaf.shape, small.params)
    assert shapes["text_embedding"]["table"] == (14, 16)
    assert shapes["text_head"]["kernel"] == (16, 13)
    assert shapes["audio_embedding"]["table"] == (4 * 12, 16)
    assert set(shapes) == {
        "audio_embedding", "text_embedding", "temporal", "out_norm", "text_head", "depth",
    }  # fmt: skip


def test_parameters_and_rings_come_in_the_formats_asked_for(small):
    lm = abstract(lambda: Moshi(small.config, precision=Precision.bf16(), rngs=nnx.Rngs(0)))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.split(lm)[1])} == {jnp.dtype(jnp.bfloat16)}
    assert lm.temporal.init_caches(1)[0].keys.dtype == jnp.bfloat16
    f32 = abstract(lambda: Moshi(small.config, rngs=nnx.Rngs(0)))
    assert f32.precision == Precision.f32()
