import jax
import jax.numpy as jnp
import numpy as np
import pytest

from layers_jax import Precision
from layers_jax.precision import on_rows


def test_the_presets_say_what_token_parity_and_speed_need():
    exact, fast = Precision.f32(), Precision.bf16()
    for name in ("params", "compute", "norm", "logits", "cache"):
        assert getattr(exact, name) == jnp.float32
    assert (exact.matmul, fast.matmul) == ("highest", "default")
    assert [fast.params, fast.compute, fast.cache] == [jnp.bfloat16] * 3
    assert [fast.norm, fast.logits] == [jnp.float32] * 2
    assert (fast.int8, Precision.int8_weights().int8) == (False, True)


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


@pytest.mark.parametrize("axis", [0, 1])
def test_few_rows_are_padded_where_that_is_faster_and_nobody_sees_it(axis):
    sizes = []

    def double(rows, by):
        sizes.append(rows.shape[axis])
        return rows * by

    rows = jnp.arange(6.0).reshape(3, 2) + 1
    two = jnp.float32(2)
    program = jax.jit(lambda rows: on_rows({"cpu": 8, "tpu": 16}, double, rows, two, axis=axis))
    np.testing.assert_array_equal(program(rows), rows * 2)
    assert 8 in sizes
    assert "8x2" in program.lower(rows).as_text() or "3x8" in program.lower(rows).as_text()
    assert "16" not in program.lower(rows).as_text()
    sizes.clear()
    enough = jnp.ones((16, 16))
    np.testing.assert_array_equal(on_rows({"cpu": 8}, double, enough, two, axis=axis), enough * 2)
    assert sizes == [16]


@pytest.mark.parametrize(("rows", "depth"), [(2, 128), (16, 192), (17, 128), (2, 64), (2, 130)])
def test_a_cpu_multiplies_few_rows_by_parts_of_the_kernel_and_nobody_sees_it(rows, depth):
    """In one piece where it would not pay: many rows, or a kernel that is one part already."""
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((rows, depth)), rng.standard_normal((depth, 2, 3))
    program = jax.jit(Precision.f32().dot)
    got = program(jnp.float32(x), jnp.float32(kernel))
    np.testing.assert_allclose(got, np.einsum("td,dnh->tnh", x, kernel), atol=1e-4)
    text = program.lower(jnp.float32(x), jnp.float32(kernel)).as_text()
    in_parts = f"{depth // 64}x64x2x3" in text
    assert in_parts == (rows <= 16 and depth in (128, 192))
