import jax
import jax.numpy as jnp
import numpy as np

from layers_jax import bind


def logits_of(model, hidden, tokens):
    """Logits [B, Q, V] of every codebook when `tokens` [B, 1 + Q] are forced."""

    def run(lm, params, hidden, tokens):
        collected = []

        def choose(k, logits):
            collected.append(logits)
            return tokens[:, 1 + k]

        bind(lm, params).depth.unroll(hidden, tokens[:, 0], choose)
        return jnp.stack(collected, axis=1)

    return np.asarray(model.compiled(run)(hidden, tokens))


def test_logits_are_those_of_the_reference(kyutai):
    """Each recorded call is a row: its normed hidden state, its text token, its own draws."""
    model, tensors = kyutai
    greedy = {k: tensors[f"expected/greedy/{k}"][:, 0] for k in ("hidden", "audio_logits")}
    tokens = [tensors["expected/greedy/text_token"], tensors["expected/greedy/audio_tokens"][:, 0]]
    got = logits_of(model, greedy["hidden"], np.concatenate(tokens, axis=1))
    assert np.abs(greedy["audio_logits"]).max() > 20
    np.testing.assert_allclose(got, greedy["audio_logits"], atol=2e-3)


def test_a_codebook_depends_on_the_frame_and_the_codebooks_before_it(small):
    hidden = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)
    hidden[1:] = hidden[0]
    hidden[3] *= 2
    tokens = np.array([[1, 2, 3], [1, 5, 3], [1, 2, 7], [1, 2, 3]], np.int32)
    got = logits_of(small, hidden, tokens)
    np.testing.assert_allclose(got[1, 0], got[0, 0], atol=1e-6)
    assert not np.allclose(got[1, 1], got[0, 1])
    np.testing.assert_allclose(got[2], got[0], atol=1e-6)  # the last token is no input
    assert not np.allclose(got[3, 0], got[0, 0])


def test_an_unknown_token_is_no_input_at_all(small):
    """As where training masks a stream: the zero vector, not the last row of the table."""
    hidden = np.random.default_rng(1).standard_normal((2, 16)).astype(np.float32)
    hidden[1] = hidden[0]
    got = logits_of(small, hidden, np.array([[-1, 0, 0], [13, 0, 0]], np.int32))
    text = small.params["depth"]["text_embedding"]["table"]
    silent = {**small.params["depth"], "text_embedding": {"table": jnp.zeros_like(text)}}
    zeroed = type(small)(small.lm, {**small.params, "depth": silent})
    expected = logits_of(zeroed, hidden, np.array([[3, 0, 0], [3, 0, 0]], np.int32))
    np.testing.assert_allclose(got[0, 0], expected[0, 0], atol=1e-6)
    assert not np.allclose(got[1, 0], expected[1, 0])


def test_every_codebook_has_its_own_weights_and_layers_share_their_norms(small):
    depth = jax.tree.map(lambda leaf: leaf.shape, small.params["depth"])
    (layer,) = depth["layers"]
    assert len(layer["attention"]) == len(layer["mlp"]) == 2
    assert layer["norm1"] == layer["norm2"] == {"scale": (8,)}
    assert depth["heads"] == [{"kernel": (8, 11)}] * 2
    assert depth["inputs"] == [{"kernel": (16, 8)}] * 2
    assert depth["audio_embeddings"] == [{"table": (12, 8)}]
    assert depth["text_embedding"] == {"table": (14, 8)}
