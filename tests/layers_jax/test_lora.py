from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers_jax import (
    Linear,
    LoraConfig,
    Precision,
    Transformer,
    TransformerConfig,
    bind,
    fuse,
    merge_adapters,
    split_adapters,
    stack_layers,
)

LORA = LoraConfig(rank=3, scaling=0.5)
CONFIG = TransformerConfig(dim=16, num_heads=4, num_layers=2, hidden=12, context=5, kv_repeat=2)


def transformer(lora, stacked=False):
    config, precision = replace(CONFIG, lora=lora), Precision.f32()
    return lambda: Transformer(config, precision=precision, stacked=stacked, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def adapted(random_module):
    return random_module(transformer(LORA))


@pytest.fixture(scope="module")
def x():
    return jnp.float32(np.random.default_rng(1).standard_normal((2, 7, 16)))


def test_an_adapter_adds_its_scaled_low_rank_product(random_module, x):
    module, params = random_module(
        lambda: Linear(16, (2, 5), lora=LORA, precision=Precision.f32(), rngs=nnx.Rngs(0))
    )
    w, a, b = (np.float64(params[name]) for name in ("kernel", "lora_a", "lora_b"))
    assert (w.shape, a.shape, b.shape) == ((16, 2, 5), (16, 3), (3, 2, 5))
    wide = np.float64(x)
    expected = np.einsum("btd,dgf->btgf", wide, w) + 0.5 * np.einsum("btd,dr,rgf->btgf", wide, a, b)
    np.testing.assert_allclose(bind(module, params)(x), expected, atol=1e-5)


def test_an_adapter_starts_as_nothing_and_can_learn():
    layer = Linear(400, 9, lora=LORA, precision=Precision.bf16(), rngs=nnx.Rngs(0))
    assert layer.lora_a.dtype == layer.lora_b.dtype == jnp.bfloat16
    a = np.float32(layer.lora_a[...])
    assert not np.any(layer.lora_b[...])
    assert np.abs(a).max() <= 0.0502 and 0.9 < a.std() * 20 * 3**0.5 < 1.1  # uniform in ±1/20


def test_the_base_of_a_split_is_the_model_without_adapters(adapted, random_module, x):
    adapters, base = split_adapters(adapted[1])
    plain, plain_params = random_module(transformer(None))
    assert jax.tree.structure(base) == jax.tree.structure(plain_params)
    off = jax.tree.map(jnp.zeros_like, adapters)
    without = bind(adapted[0], merge_adapters(off, base))(x)
    np.testing.assert_array_equal(without, bind(plain, base)(x))
    assert np.abs(without - bind(adapted[0], adapted[1])(x)).max() > 0.1


def test_adapters_are_two_leaves_beside_each_of_the_four_matrices_of_a_layer(adapted):
    adapters, base = split_adapters(adapted[1])
    paths = {
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in jax.tree_util.tree_leaves_with_path(adapters)
    }
    matrices = ("attention.qkv", "attention.out", "mlp.gate_up", "mlp.down")
    assert paths == {f"layers.{i}.{m}.lora_{f}" for i in (0, 1) for m in matrices for f in "ab"}
    assert not any(
        "lora" in jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(base)
    )


def test_split_and_merge_are_inverse_and_copy_nothing(adapted):
    params = adapted[1]
    merged = merge_adapters(*split_adapters(params))
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (merged, params)), strict=True))


def test_layers_without_adapters_keep_their_place():
    tree = {"layers": [{"norm": 1}, {"mlp": {"kernel": 2, "lora_a": 3, "lora_b": 4}}]}
    adapters, base = split_adapters(tree)
    assert adapters == {"layers": [{}, {"mlp": {"lora_a": 3, "lora_b": 4}}]}
    assert base == {"layers": [{"norm": 1}, {"mlp": {"kernel": 2}}]}
    assert merge_adapters(adapters, base) == tree


def test_fused_is_unfused(adapted, random_module, x):
    module, params = adapted
    plain, _ = random_module(transformer(None))
    fused = bind(plain, fuse(params, LORA.scaling))(x)
    np.testing.assert_allclose(fused, bind(module, params)(x), atol=2e-5)


def test_stacked_layers_fuse_like_listed_ones(adapted, x):
    listed = fuse(adapted[1], LORA.scaling)["layers"]
    stacked = fuse({"layers": stack_layers(adapted[1]["layers"])}, LORA.scaling)["layers"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), stacked, stack_layers(listed)
    )


def test_stacked_layers_run_like_listed_ones(adapted, x):
    template = nnx.eval_shape(transformer(LORA, stacked=True))
    stacked = bind(template, {"layers": stack_layers(adapted[1]["layers"])})(x)
    np.testing.assert_allclose(stacked, bind(*adapted)(x), atol=2e-5)


def test_fusing_rounds_three_times_in_the_format_of_the_kernel():
    """A product, its scaled value and the sum: the reference's own roundings in bf16."""
    half = jnp.bfloat16
    rng = np.random.default_rng(3)
    w, a, b = (jnp.asarray(rng.standard_normal(s), half) for s in ((6, 5), (6, 2), (2, 5)))
    fused = fuse({"kernel": w, "lora_a": a, "lora_b": b}, 1.7)["kernel"]
    product = (np.float32(a) @ np.float32(b)).astype(half)
    scaled = (np.float32(1.7) * np.float32(product)).astype(half)
    expected = (np.float32(w) + np.float32(scaled)).astype(half)
    assert fused.dtype == half
    np.testing.assert_array_equal(fused, expected)


def test_a_quantised_kernel_is_not_fused_into():
    leaves = {
        "kernel": jnp.zeros((4, 4), jnp.int8),
        "lora_a": jnp.zeros((4, 2)),
        "lora_b": jnp.zeros((2, 4)),
    }
    with pytest.raises(ValueError, match=r"kernel is int8, expected a float.*fuse first"):
        fuse({"head": leaves}, 2.0)


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_is_refused(rank):
    with pytest.raises(ValueError, match="expected at least 1"):
        LoraConfig(rank=rank)
