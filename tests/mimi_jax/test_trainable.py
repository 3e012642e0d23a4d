import jax
import jax.numpy as jnp
import numpy as np

from mimi_jax import decode, trainable

CODES = np.random.default_rng(0).integers(0, 7, (1, 3, 6)).astype(np.int32)


def test_the_decoder_moves_and_the_meaning_of_codes_does_not(small):
    moves = trainable(small.params)
    tops = {top: jax.tree.leaves(tree) for top, tree in moves.items()}
    assert all(all(tops[top]) for top in ("decoder", "decoder_transformer", "upsample"))
    assert not any(any(tops[top]) for top in ("encoder", "encoder_transformer", "downsample"))
    acoustic = moves["quantizer"]["acoustic"]
    assert acoustic["output_projection"]["kernel"] and not acoustic["input_projection"]["kernel"]
    assert not any(jax.tree.leaves(acoustic["codebooks"]))


def test_the_encoder_moves_when_it_is_asked_for_but_code_vectors_never(small):
    moves = trainable(small.params, encoder=True)
    books = [moves["quantizer"][part].pop("codebooks") for part in ("semantic", "acoustic")]
    assert all(jax.tree.leaves(moves)) and not any(jax.tree.leaves(books))


def test_gradients_of_the_decoder_are_those_of_finite_differences(small):
    """Of what is heard after codes, streamed past the ring's wrap and in full."""
    target = np.random.default_rng(1).uniform(-1, 1, (1, 48)).astype(np.float32)
    moves = trainable(small.params)

    def loss(params, mode):
        return jnp.mean((decode(small.mimi, params, jnp.asarray(CODES), mode=mode) - target) ** 2)

    rng = np.random.default_rng(2)
    direction = jax.tree.map(
        lambda leaf, move: rng.standard_normal(leaf.shape).astype(np.float32) * move,
        small.params,
        moves,
    )
    for mode in ("stream", "full"):
        value = jax.jit(lambda params, mode=mode: loss(params, mode))
        grads = jax.jit(jax.grad(lambda params, mode=mode: loss(params, mode)))(small.params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
        slope = sum(
            float(jnp.vdot(g, d))
            for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction), strict=True)
        )
        steps = (2e-3, -2e-3)
        ahead, back = (float(value(moved(small.params, direction, by))) for by in steps)
        np.testing.assert_allclose(slope, (ahead - back) / (steps[0] - steps[1]), rtol=2e-2)
        assert abs(slope) > 1e-3
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads["encoder"]))


def moved(params, direction, by):
    return jax.tree.map(lambda leaf, along: leaf + by * along, params, direction)
