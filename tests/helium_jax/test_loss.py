import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helium_jax import forward, token_loss


def test_losses_are_those_of_the_reference(recorded, golden):
    """Both weightings; gradients are compared by the verify command."""
    model, tensors = recorded("train_loss")
    codes = jnp.asarray(tensors["inputs/codes"])
    logits = model.compiled(forward)(codes)
    options = golden("train_loss").provenance["options"]
    for name, weights in options.items():
        loss = token_loss(
            model.config,
            logits,
            codes,
            first_codebook_weight=weights["first_codebook_weight_multiplier"],
            text_padding_weight=weights["text_padding_weight"],
        )
        for what, got in (
            ("loss", loss.value()),
            ("loss_text", loss.text.mean()),
            ("loss_audio", loss.audio.mean()),
            ("loss_per_codebook", loss.per_codebook.mean()),
        ):
            wanted = tensors[f"expected/{name}/{what}"]
            np.testing.assert_allclose(np.reshape(got, wanted.shape), wanted, rtol=1e-5)


@pytest.fixture(scope="module")
def batch(small):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 11, (2, 5, 6))
    codes[0, :, 4:] = -1
    return jnp.asarray(codes)


def test_sums_and_weights_add_up_over_batches(small, batch):
    """Unequal counts: the mean of means would be another number."""
    run = small.compiled(lambda lm, p, codes: token_loss(lm.config, forward(lm, p, codes), codes))
    whole = run(batch)
    parts = [run(batch[:1]), run(batch[1:])]
    total = jax.tree.map(lambda a, b: a + b, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), total, whole)
    assert parts[0].text.weight == 4 and parts[1].text.weight == 6
    means = (float(parts[0].value()) + float(parts[1].value())) / 2
    assert abs(means - float(whole.value())) > 1e-4


def test_unknown_frames_carry_no_gradient(small, batch):
    """Nor NaN: the frames that delays cut off have no logits."""

    def value(table, codes):
        params = {**small.params, "text_embedding": {"table": table}}
        return token_loss(small.config, forward(small.lm, params, codes), codes).value()

    nothing = jnp.full_like(batch, -1)
    table = small.params["text_embedding"]["table"]
    loss, gradient = jax.jit(jax.value_and_grad(value))(table, nothing)
    assert loss == 0 and not np.any(gradient)
    loss, gradient = jax.jit(jax.value_and_grad(value))(table, batch)
    assert np.isfinite(loss) and np.isfinite(gradient).all() and np.any(gradient)
