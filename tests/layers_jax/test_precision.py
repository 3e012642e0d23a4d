import jax.numpy as jnp
import numpy as np

from layers_jax import Precision


def test_the_presets_say_what_token_parity_and_speed_need():
    exact, fast = Precision.f32(), Precision.bf16()
    for name in ("params", "compute", "norm", "logits", "cache"):
        assert getattr(exact, name) == jnp.float32
    assert (exact.matmul, fast.matmul) == ("highest", "default")
    assert [fast.params, fast.compute, fast.cache] == [jnp.bfloat16] * 3
    assert [fast.norm, fast.logits] == [jnp.float32] * 2


def test_equal_policies_are_one_static_argument():
    assert hash(Precision.bf16()) == hash(Precision.bf16())
    assert Precision.f32() == Precision() != Precision.bf16()


def test_bf16_products_are_summed_in_f32():
    """A bf16 sum of ones stops at 256, where the next number is 258."""
    x = jnp.ones((1, 301), jnp.bfloat16)
    kernel = jnp.array([1.0] * 300 + [-298.0], jnp.bfloat16)[:, None]
    product = Precision.bf16().dot(x, kernel)
    assert product.dtype == jnp.bfloat16
    assert float(product[0, 0]) == 2


def test_a_kernel_may_have_several_output_axes():
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 3, 5)), rng.standard_normal((5, 2, 4))
    got = Precision.f32().dot(jnp.float32(x), jnp.float32(kernel))
    np.testing.assert_allclose(got, np.einsum("btd,dnh->btnh", x, kernel), atol=1e-5)


def test_operands_are_taken_to_the_compute_format():
    got = Precision.f32().dot(jnp.ones((1, 2), jnp.bfloat16), jnp.ones((2, 3), jnp.bfloat16))
    assert got.dtype == jnp.float32
