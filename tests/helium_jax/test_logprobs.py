import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helium_jax import Guidance, Sampler, Sampling, init_state, trajectory_log_probs


def test_a_session_is_scored_as_the_step_scored_it(small, small_sampled, small_sampling):
    """Five frames, inside the context of six: past it the ring forgets what a forward sees too."""
    users = np.random.default_rng(5).integers(0, small.config.card, (6, 3, 2)).astype(np.int32)
    _, out = small_sampled(init_state(small.lm, 3), {"user": users})
    # Outputs of calls 1.. are frames 0.., as are the user's frames of calls 1..
    codes = np.concatenate([out.tokens[1:], users[1:]], axis=2).transpose(1, 2, 0)
    score = small.compiled(lambda lm, p, c: trajectory_log_probs(lm, p, c, small_sampling))
    got, known = score(jnp.asarray(codes))
    assert known[:, 0].all() and known[:, 1].all() and not known[:, 2, -1].any()
    for frame in range(4):
        # Text and the semantic codebook of frame t are drawn at call t, the delayed one at t + 1.
        drawn = [out.log_probs[frame + delay, :, k] for k, delay in enumerate((0, 0, 1))]
        np.testing.assert_allclose(got[:, :, frame], np.stack(drawn, axis=1), atol=1e-4)
    assert np.ptp(np.asarray(got)) > 0.5


def test_tokens_that_cannot_be_drawn_are_impossible():
    logits = jnp.array([[3.0, 1.0, 2.0, 1.0]])
    score = Sampler(temperature=0.5, top_k=3).log_probs_of
    values = [float(score(logits, jnp.array([token]))[0]) for token in range(4)]
    kept = np.array([6.0, 2.0, 4.0])
    np.testing.assert_allclose(values[:3], kept - np.log(np.exp(kept).sum()), atol=1e-6)
    assert values[3] == -np.inf, "of equals the first is kept"
    greedy = Sampler(temperature=0).log_probs_of
    assert [float(greedy(logits, jnp.array([t]))[0]) for t in (0, 2)] == [0, -np.inf]


def test_probabilities_of_what_can_be_drawn_sum_to_one():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(5, 17)), jnp.float32)
    every = jnp.broadcast_to(jnp.arange(17)[:, None], (17, 5))
    for top_k in (None, 4, 40):
        sampler = Sampler(temperature=0.7, top_k=top_k)
        values = jax.vmap(lambda tokens, s=sampler: s.log_probs_of(logits, tokens))(every)
        np.testing.assert_allclose(np.exp(values).sum(0), 1, rtol=1e-5)


def test_guidance_cannot_be_scored(small):
    sampling = Sampling.greedy(Guidance(coefficient=2.0, no_text=True))
    with pytest.raises(ValueError, match=r"sampling has guidance, expected none"):
        trajectory_log_probs(small.lm, small.params, jnp.zeros((1, 5, 2), int), sampling)
