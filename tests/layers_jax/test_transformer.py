import functools
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers_jax import (
    Precision,
    Transformer,
    TransformerConfig,
    bind,
    reset_rows,
    stack_layers,
    unstack_layers,
)

CONFIG = TransformerConfig(dim=16, num_heads=4, num_layers=2, hidden=12, context=5, kv_repeat=2)
CODEC = replace(CONFIG, norm="layer", mlp="gelu", layer_scale=0.3, kv_repeat=1)
LENGTH, BATCH = 14, 3


def build(config, stacked=False):
    return Transformer(config, precision=Precision.f32(), stacked=stacked, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def made(random_module):
    """`made(config)`: module and parameters; the parameters depend on the shapes alone."""
    return functools.cache(lambda config: random_module(lambda: build(config)))


@pytest.fixture(scope="module")
def x():
    return jnp.float32(np.random.default_rng(1).standard_normal((BATCH, LENGTH, 16)))


@pytest.fixture(scope="module")
def whole(made, x):
    """`whole(config)`: the full form; the ring rule has no part in it."""

    @functools.cache
    def run(config):
        module, params = made(config)
        return np.asarray(jax.jit(lambda params, x: bind(module, params)(x))(params, x))

    return lambda config: run(replace(config, ring="kyutai"))


def stream(module, params, x, length=1, capacity=None):
    """The sequence in calls of `length` tokens."""

    def body(carry, tokens):
        caches, offset = carry
        y, caches = bind(module, params).step(tokens, caches, offset, jnp.ones(BATCH, bool))
        return (caches, offset + length), y

    calls = x.reshape(BATCH, -1, length, x.shape[-1]).swapaxes(0, 1)
    start = (module.init_caches(BATCH, capacity), jnp.zeros(BATCH, jnp.int32))
    out = jax.jit(lambda calls: jax.lax.scan(body, start, calls)[1])(calls)
    return out.swapaxes(0, 1).reshape(x.shape)


def test_token_by_token_is_the_whole_far_beyond_the_context(made, x, whole):
    module, params = made(CONFIG)
    np.testing.assert_allclose(stream(module, params, x), whole(CONFIG), atol=1e-5)


def test_a_ring_that_holds_the_whole_session_is_enough(made, x, whole):
    """Shorter than the context: what rollouts of a known length allocate."""
    config = replace(CONFIG, context=2 * LENGTH)
    module, params = made(config)
    np.testing.assert_allclose(stream(module, params, x, capacity=LENGTH), whole(config), atol=1e-5)


def test_the_forks_ring_sees_one_token_less_once_it_is_full(made, x, whole):
    """Before that the two agree; the first token that differs is number `context - 1`."""
    module, params = made(replace(CONFIG, ring="personaplex"))
    got = stream(module, params, x)
    np.testing.assert_allclose(got, whole(replace(CONFIG, context=CONFIG.context - 1)), atol=1e-5)
    differs = np.abs(got - whole(CONFIG)).max(axis=(0, 2)) > 1e-4
    assert np.flatnonzero(differs)[0] == CONFIG.context - 1


def test_two_tokens_a_call_differ_from_the_whole_when_the_ring_is_full(made, x, whole):
    """The codec's case: the second token's key has replaced the oldest that the first would see.

    With a context of 6 tokens the third call still fits; the first token of the fourth loses one.
    """
    config = replace(CODEC, context=6)
    module, params = made(config)
    differs = np.abs(stream(module, params, x, 2) - whole(config)).max(axis=(0, 2))
    assert differs[:6].max() < 1e-5
    assert differs[6] > 1e-4


def test_rows_are_separate_and_positions_their_own(made, x):
    """Masked calls leave a row bit for bit as it was, NaN inputs included; then it goes on."""
    module, params = made(CODEC)
    step = jax.jit(lambda *arguments: bind(module, params).step(*arguments))
    alone = stream(module, params, x)
    alone, caches, offset = np.asarray(alone), module.init_caches(BATCH), np.zeros(BATCH, np.int32)
    rng = np.random.default_rng(3)
    for _ in range(LENGTH):
        mask = rng.random(BATCH) < 0.7
        tokens = np.where(
            mask[:, None, None], np.asarray(x)[np.arange(BATCH), offset][:, None], np.nan
        )
        before = caches
        y, caches = step(tokens, caches, offset, mask)
        y, leaves = np.asarray(y), jax.tree.leaves(caches)
        for row in range(BATCH):
            if mask[row]:
                expected = alone[row, offset[row]]
                np.testing.assert_allclose(y[row, 0], expected, atol=1e-5)
            for old, new in zip(jax.tree.leaves(before), leaves, strict=True):
                same = np.asarray(old)[row].tobytes() == np.asarray(new)[row].tobytes()
                assert same != mask[row]
        offset = offset + mask
    assert len(set(offset.tolist())) > 1 and offset.max() > 1.5 * CONFIG.context


@pytest.mark.parametrize("batch, length", [(1, 1), (3, 1), (1, 2)])
def test_donated_rings_are_updated_where_they_are(made, batch, length):
    """Not one copy, not even a ring's: at long contexts those were most of what a CPU moved."""
    config = replace(CONFIG, context=100)
    module, params = made(config)
    step = jax.jit(lambda *arguments: bind(module, params).step(*arguments), donate_argnums=1)
    compiled = step.lower(
        jnp.zeros((batch, length, 16)), module.init_caches(batch),
        jnp.zeros(batch, jnp.int32), jnp.ones(batch, bool),
    ).compile()  # fmt: skip
    text, memory, elements = compiled.as_text(), compiled.memory_analysis(), batch * 2 * 100 * 4
    assert text is not None and memory is not None
    assert memory.alias_size_in_bytes >= 2 * config.num_layers * elements * 4
    made_by = re.findall(r"= f32\[([\d,]+)\]\S* ([\w-]+)\(", text)
    rings = [name for shape, name in made_by if np.prod([*map(int, shape.split(","))]) == elements]
    assert "parameter" in rings and "copy" not in rings


def test_a_reset_row_forgets_a_nan(made, x):
    module, params = made(CODEC)
    step = jax.jit(lambda *arguments: bind(module, params).step(*arguments))
    fresh, start, everyone = module.init_caches(BATCH), jnp.zeros(BATCH, int), jnp.ones(BATCH, bool)
    first, after = step(x[:, :1], fresh, start, everyone)
    broken, caches = step(x[:, 1:2] * jnp.nan, after, start + 1, everyone)
    assert np.isnan(broken).all()
    caches = reset_rows(jnp.array([True, False, True]), fresh, caches)
    again, now = step(x[:, :1], caches, jnp.array([0, 2, 0]), everyone)
    for row in (0, 2):
        np.testing.assert_array_equal(again[row], first[row])
        for old, new in zip(jax.tree.leaves(after), jax.tree.leaves(now), strict=True):
            np.testing.assert_array_equal(old[row], new[row])
    assert np.isnan(again[1]).all()


def test_stacked_layers_give_the_values_and_gradients_of_listed_ones(made, x):
    module, params = made(CONFIG)
    stacked = nnx.eval_shape(lambda: build(CONFIG, stacked=True))
    stacked_params = {"layers": stack_layers(params["layers"])}

    def loss(module):
        def run(params, x):
            y = bind(module, params)(x)
            return (y**2).mean(), y

        return jax.jit(jax.value_and_grad(run, has_aux=True))

    (_, listed_y), listed = loss(module)(params, x)
    (_, stacked_y), scanned = loss(stacked)(stacked_params, x)
    np.testing.assert_allclose(stacked_y, listed_y, atol=1e-5)
    unstacked = {"layers": unstack_layers(scanned["layers"])}
    assert jax.tree.structure(unstacked) == jax.tree.structure(listed)
    for got, expected in zip(jax.tree.leaves(unstacked), jax.tree.leaves(listed), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert np.any(np.asarray(expected) != 0)


def test_stacking_is_undone_bit_for_bit(made):
    _, params = made(CONFIG)
    again = unstack_layers(stack_layers(params["layers"]))
    assert jax.tree.structure(again) == jax.tree.structure(params["layers"])
    jax.tree.map(np.testing.assert_array_equal, again, params["layers"])


def test_stacked_layers_refuse_to_step(made, x):
    stacked = nnx.eval_shape(lambda: build(CONFIG, stacked=True))
    with pytest.raises(ValueError, match=r"stacked layers got a step, .*; call unstack_layers"):
        stacked.step(x[:, :1], [], jnp.zeros(BATCH, int), jnp.ones(BATCH, bool))


def test_rings_are_no_longer_than_the_session_or_the_context(made):
    module, _ = made(CONFIG)
    assert [ring.keys.shape for ring in module.init_caches(2)] == [(2, 2, 5, 4)] * 2
    assert module.init_caches(2, 3)[0].capacity == 3
    assert module.init_caches(2, 100)[0].capacity == 5


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_layers": 0}, r"num_layers is 0, expected at least 1"),
        ({"context": -3}, r"context is -3, expected at least 1"),
        ({"num_heads": 5}, r"dim is 16, expected a multiple of 2 \* 5 heads"),
        ({"kv_repeat": 3}, r"kv_repeat is 3, expected a divisor of 4"),
    ],
)
def test_impossible_shapes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)
