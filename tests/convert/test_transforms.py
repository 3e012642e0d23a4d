import ml_dtypes
import numpy as np
import pytest

from convert.transforms import TRANSFORMS, to_jax, to_torch, torch_shape

# Our shape and PyTorch's for each transform; every axis has another length.
SHAPES = {
    "same": ((5, 3), (5, 3)),
    "matrix": ((5, 3), (3, 5)),
    "qkv": ((7, 2, 5, 4), ((6 + 2 + 2) * 4, 7)),  # 2 key heads, 3 queries each, width 4
    "gate_up": ((7, 2, 5), (10, 7)),
    "alpha": ((7,), (1, 1, 7)),
    "conv": ((3, 5, 7), (7, 5, 3)),
    "conv_transposed": ((5, 3, 7), (5, 7, 3)),
    "depthwise": ((3, 5), (5, 1, 3)),
    "pointwise": ((5, 7), (7, 5, 1)),
}


def test_every_transform_is_tested_here():
    assert set(SHAPES) == set(TRANSFORMS)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", SHAPES)
def test_each_direction_undoes_the_other(name, dtype):
    ours, theirs = SHAPES[name]
    assert torch_shape(name, ours) == theirs
    values = np.arange(np.prod(ours)).astype(dtype)
    leaf = to_jax(name, values.reshape(theirs), ours)
    assert leaf.shape == ours and leaf.dtype == dtype and leaf.flags.c_contiguous
    back = to_torch(name, leaf)
    assert back.shape == theirs and back.dtype == dtype and back.flags.c_contiguous
    np.testing.assert_array_equal(back.reshape(-1), values)
    np.testing.assert_array_equal(to_jax(name, to_torch(name, values.reshape(ours)), ours).ravel(),
                                  values)  # fmt: skip


def test_no_bit_changes_on_the_way():
    odd = np.array([0x7FA1, 0xFFC3, 0x8000, 0x0001], np.uint16).view(ml_dtypes.bfloat16)
    leaf = to_jax("matrix", odd.reshape(1, 4), (4, 1))
    assert leaf.tobytes() == odd.tobytes()
    assert to_torch("matrix", leaf).tobytes() == odd.tobytes()


def test_qkv_groups_each_key_head_with_its_queries():
    dim, groups, repeat, head_dim = 7, 2, 3, 4
    fused = np.random.default_rng(0).normal(size=((groups * (repeat + 2)) * head_dim, dim))
    queries, keys, values = np.split(
        fused, [groups * repeat * head_dim, groups * (repeat + 1) * head_dim]
    )
    qkv = to_jax("qkv", fused.astype(np.float32), (dim, groups, repeat + 2, head_dim))
    x = np.random.default_rng(1).normal(size=dim)
    for group in range(groups):
        for r in range(repeat):  # query heads share a key head with their neighbours
            head = group * repeat + r
            rows = queries[head * head_dim : (head + 1) * head_dim]
            np.testing.assert_allclose(x @ qkv[:, group, r], rows @ x, rtol=1e-5, atol=1e-5)
        rows = slice(group * head_dim, (group + 1) * head_dim)
        np.testing.assert_allclose(x @ qkv[:, group, -2], keys[rows] @ x, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(x @ qkv[:, group, -1], values[rows] @ x, rtol=1e-5, atol=1e-5)


def test_large_matrices_are_copied_in_strips():
    matrix = np.arange(3 * 150, dtype=np.uint16).view(ml_dtypes.bfloat16).reshape(150, 3)
    leaf = to_jax("matrix", matrix, (3, 150))
    assert leaf.flags.c_contiguous and leaf.tobytes() == matrix.T.tobytes()
    fused = to_torch("gate_up", leaf[:, :140].reshape(3, 2, 70))
    assert fused.tobytes() == matrix[:140].tobytes()


def test_gate_is_the_first_half():
    fused = np.arange(12, dtype=np.float32).reshape(6, 2)
    gate_up = to_jax("gate_up", fused, (2, 2, 3))
    np.testing.assert_array_equal(gate_up[:, 0], fused[:3].T)
    np.testing.assert_array_equal(gate_up[:, 1], fused[3:].T)


def test_convolutions_keep_the_order_of_taps():
    weight = np.arange(30, dtype=np.float32).reshape(2, 3, 5)
    assert to_jax("conv", weight, (5, 3, 2))[4, 1, 0] == weight[0, 1, 4]
    assert to_jax("conv_transposed", weight, (2, 5, 3))[0, 4, 1] == weight[0, 1, 4]
    assert to_jax("depthwise", weight[:, :1], (5, 2))[4, 1] == weight[1, 0, 4]
    assert to_jax("pointwise", weight[..., :1], (3, 2))[1, 0] == weight[0, 1, 0]
