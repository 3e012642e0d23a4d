import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helium_jax import Sampler, Sampling, nano
from helium_jax.sampling import fold, row_keys


@pytest.fixture(scope="module")
def ops(golden):
    recording = golden("ops")
    return recording.tensors, recording.provenance["options"]


@pytest.mark.parametrize("name", ["topk", "topk_clip"])
def test_draws_by_rank_are_those_of_the_reference(ops, name):
    """`topk_clip` asks for more tokens than there are."""
    tensors, options = ops
    top_k = options["top_k" if name == "topk" else "top_k_clip"]
    sampler = Sampler(temperature=options["sample_temp"], top_k=top_k)
    noise = tensors[f"inputs/noise_{name}"]
    assert sampler.num_ranks(tensors["inputs/logits"].shape[1]) == noise.shape[1]
    tokens, _ = sampler(jnp.asarray(tensors["inputs/logits"]), jnp.asarray(noise))
    np.testing.assert_array_equal(tokens, tensors[f"expected/sample_{name}"])


def test_draws_over_all_tokens_are_those_of_the_reference(ops):
    tensors, options = ops
    sampler = Sampler(temperature=options["sample_temp"])
    noise = jnp.asarray(tensors["inputs/noise_plain"])
    tokens, _ = sampler(jnp.asarray(tensors["inputs/logits"]), noise)
    np.testing.assert_array_equal(tokens, tensors["expected/sample_plain"])


def test_greedy_takes_the_first_of_equals_and_is_certain(ops):
    tensors, _ = ops
    tokens, log_probs = Sampler(temperature=0)(jnp.asarray(tensors["inputs/logits_ties"]), None)
    np.testing.assert_array_equal(tokens, tensors["expected/greedy"])
    assert log_probs.tolist() == [0, 0, 0]


@pytest.mark.parametrize("top_k", [None, 3])
def test_log_probs_are_of_the_distribution_that_was_drawn_from(top_k):
    """Over the tokens that could be drawn they are a distribution, and draws follow it."""
    logits = jnp.array([0.5, -1.0, 2.0, 1.5, 0.0])
    sampler = Sampler(temperature=0.7, top_k=top_k)
    draws = 20_000
    noise = sampler.noise(row_keys(0, jnp.arange(draws)), 5)
    assert noise is not None and noise.shape == (draws, 5 if top_k is None else 3)
    many = jnp.broadcast_to(logits, (draws, 5))
    tokens, log_probs = map(np.asarray, jax.jit(sampler.__call__)(many, noise))

    weights = np.exp(np.asarray(logits) / 0.7)
    if top_k is not None:
        weights[[0, 1, 4]] = [weights[0], 0, 0]
    probs = weights / weights.sum()
    np.testing.assert_allclose(np.exp(log_probs), probs[tokens], rtol=1e-5)
    frequency = np.bincount(tokens, minlength=5) / draws
    deviation = np.sqrt(probs * (1 - probs) / draws)
    assert (np.abs(frequency - probs) <= 5 * deviation + 1e-9).all()


def test_bf16_logits_are_taken_to_f32():
    logits = jnp.array([[1.0, 3.0, 2.0]], jnp.bfloat16)
    _, log_prob = Sampler(temperature=1.0, top_k=2)(logits, jnp.array([[1e-6, 1.0]]))
    assert log_prob.dtype == jnp.float32
    np.testing.assert_allclose(log_prob, [-np.log1p(np.exp(-1))], rtol=1e-6)


def test_greedy_needs_no_noise():
    keys = row_keys(0, jnp.arange(2))
    assert Sampler(temperature=0).noise(keys, 5) is None
    assert Sampling.greedy().noise(nano(), keys, jnp.zeros(2, int)) == (None, None)


def test_noise_depends_on_seed_row_frame_and_stream_and_nothing_else():
    config, sampling = nano(), Sampling()
    noise = jax.jit(lambda seed, rows, frame: sampling.noise(config, row_keys(seed, rows), frame))
    text, audio = map(np.asarray, noise(1, jnp.array([4, 9, 2]), jnp.array([7, 7, 3])))
    assert text.shape == (3, 25) and audio.shape == (3, 8, 64)
    again = noise(1, jnp.array([2, 4, 4]), jnp.array([3, 7, 8]))
    np.testing.assert_array_equal(again[0][:2], text[[2, 0]])
    np.testing.assert_array_equal(again[1][:2], audio[[2, 0]])
    other_seed = noise(2, jnp.array([4, 9, 2]), jnp.array([7, 7, 3]))
    every = [text[0], text[1], text[2], again[0][2], other_seed[0][0], audio[0, 0], audio[0, 1]]
    assert len({np.asarray(draw)[:25].tobytes() for draw in every}) == len(every)


def test_streams_of_a_frame_have_different_keys():
    keys = fold(row_keys(0, jnp.arange(3)), jnp.array([0, 1, 0]), jnp.arange(5))
    assert keys.shape == (3, 5, 2)
    assert len({key.tobytes() for key in np.asarray(keys).reshape(-1, 2)}) == 15


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"temperature": -0.1}, r"temperature is -0\.1, expected 0 or more"),
        ({"temperature": 1.0, "top_k": 0}, r"top_k is 0, expected at least 1, or None"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampler(**settings)


def test_defaults_are_those_of_the_reference():
    default = Sampling()
    assert (default.text.temperature, default.text.top_k) == (0.7, 25)
    assert (default.audio.temperature, default.audio.top_k) == (0.8, 250)
