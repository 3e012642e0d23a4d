"""The permutations of values between the PyTorch layout of a tensor and ours, with inverses.

Every transform only moves values, so conversion is exact whatever the number format.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Transform:
    """A permutation of values and its inverse.

    Attributes:
      to_jax: the PyTorch tensor and our shape -> our tensor.
      to_torch: our tensor -> the PyTorch tensor.
    """

    to_jax: Callable[[Any, Shape], Any]
    to_torch: Callable[[Any], Any]


def _heads(groups: int, repeat: int) -> np.ndarray:
    """Where our heads are in the fused projection.

    Ours: for each key head its R query heads, its key, its value. There: all query heads, then all
    keys, then all values.
    """
    queries = groups * repeat
    group = np.arange(groups)[:, None]
    parts = (group * repeat + np.arange(repeat), queries + group, queries + groups + group)
    return np.concatenate(parts, axis=1).reshape(-1)


def _qkv_to_jax(fused: Any, shape: Shape) -> Any:
    dim, groups, width, head_dim = shape
    heads = fused.reshape(groups * width, head_dim, dim)[_heads(groups, width - 2)]
    return heads.transpose(2, 0, 1).reshape(shape)


def _qkv_to_torch(qkv: Any) -> Any:
    dim, groups, width, head_dim = qkv.shape
    heads = qkv.reshape(dim, groups * width, head_dim)[:, np.argsort(_heads(groups, width - 2))]
    return heads.transpose(1, 2, 0).reshape(-1, dim)


TRANSFORMS: dict[str, Transform] = {
    "same": Transform(lambda x, shape: x, lambda y: y),
    # [E, D] <-> [D, E]
    "matrix": Transform(lambda x, shape: x.T, lambda y: y.T),
    # [(Nq + 2 N) H, D] <-> [D, N, R + 2, H]
    "qkv": Transform(_qkv_to_jax, _qkv_to_torch),
    # [2 F, D] <-> [D, 2, F]
    "gate_up": Transform(
        lambda x, shape: x.reshape(2, -1, x.shape[1]).transpose(2, 0, 1),
        lambda y: y.transpose(1, 2, 0).reshape(-1, y.shape[0]),
    ),
    # [1, 1, D] <-> [D]
    "alpha": Transform(lambda x, shape: x.reshape(-1), lambda y: y.reshape(1, 1, -1)),
    # [out, in, k] <-> [k, in, out]
    "conv": Transform(lambda x, shape: x.transpose(2, 1, 0), lambda y: y.transpose(2, 1, 0)),
    # [in, out, k] <-> [in, k, out]
    "conv_transposed": Transform(
        lambda x, shape: x.transpose(0, 2, 1), lambda y: y.transpose(0, 2, 1)
    ),
    # [C, 1, k] <-> [k, C]
    "depthwise": Transform(lambda x, shape: x[:, 0].T, lambda y: y.T[:, None]),
    # [out, in, 1] <-> [in, out]
    "pointwise": Transform(lambda x, shape: x[..., 0].T, lambda y: y.T[..., None]),
}


@functools.lru_cache(maxsize=4096)
def torch_shape(name: str, jax_shape: Shape) -> Shape:
    """The PyTorch shape of a leaf of shape `jax_shape` under the transform `name`."""
    leaf = jax.ShapeDtypeStruct(jax_shape, jnp.float32)
    return jax.eval_shape(TRANSFORMS[name].to_torch, leaf).shape


def to_jax(name: str, tensor: np.ndarray, jax_shape: Shape) -> np.ndarray:
    """The PyTorch `tensor` in our layout, contiguous."""
    return _on_bits(lambda bits: TRANSFORMS[name].to_jax(bits, jax_shape), tensor)


def to_torch(name: str, leaf: np.ndarray) -> np.ndarray:
    """Our `leaf` in the PyTorch layout, contiguous."""
    return _on_bits(TRANSFORMS[name].to_torch, leaf)


def _on_bits(move: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    # Plain integers: numpy moves them faster than bfloat16, and no bit can change on the way.
    return _contiguous(move(x.view(np.dtype(f"u{x.dtype.itemsize}")))).view(x.dtype)


def _contiguous(view: np.ndarray, block: int = 64) -> np.ndarray:
    """`view` in C order. A transposed matrix is copied in strips of columns, about 7 times faster.

    Numpy's own copy touches a new cache line for each value; within a strip every line that is
    fetched is used up before it is dropped.
    """
    if view.flags.c_contiguous:
        return view
    flat = view.reshape(view.shape[0], -1)
    result = np.empty(flat.shape, flat.dtype)
    for start in range(0, flat.shape[1], block):
        strip = slice(start, start + block)
        result[:, strip] = np.ascontiguousarray(flat[:, strip])
    return result.reshape(view.shape)
