"""Causal convolutions over `[B, T, C]`: the full form is the streaming step on a fresh history.

Both are matrix products: a convolution gathers its windows, a transposed one overlaps its outputs.
XLA's own strided transposed convolutions cost a CPU more than twice as much.
Source: moshi/modules/conv.py.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from layers_jax.linear import normal_init
from layers_jax.precision import Precision


class CausalConv1d(nnx.Module):
    """Convolution that sees the past only; kernel [K, C, D], optional bias [D]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
        precision: Precision,
        rngs: nnx.Rngs,
    ):
        fan_in = kernel_size * in_channels
        shape = (kernel_size, in_channels, out_channels)
        self.kernel = normal_init(rngs, shape, precision, fan_in=fan_in)
        self.bias = nnx.Param(jnp.zeros((out_channels,), precision.params)) if bias else None
        self.stride, self.dilation, self.precision = stride, dilation, precision

    @property
    def history_length(self) -> int:
        """Number of past samples a step needs: the window less the stride."""
        return (self.kernel.shape[0] - 1) * self.dilation + 1 - self.stride

    def init_history(self, batch: int) -> Float[Array, "B P C"]:
        """Silence before the start."""
        shape = (batch, self.history_length, self.kernel.shape[1])
        return jnp.zeros(shape, self.precision.compute)

    def __call__(
        self, x: Float[Array, "B T C"], history: Float[Array, "B P C"] | None = None
    ) -> tuple[Float[Array, "B U D"], Float[Array, "B P C"]]:
        """Output frames U = T / stride, and the history for the next call.

        Raises:
          ValueError: T is not a multiple of the stride.
        """
        batch, length, channels = x.shape
        if length % self.stride:
            raise ValueError(
                f"convolution got {length} samples, expected a multiple of its stride "
                f"{self.stride}; pad the input"
            )
        past = self.init_history(batch) if history is None else history
        joined = jnp.concatenate([past, x.astype(past.dtype)], axis=1)
        frames, size = length // self.stride, self.kernel.shape[0]
        if size == 2 * self.stride:  # windows are pairs of neighbouring blocks: no gather needed
            blocks = joined.reshape(batch, frames + 1, self.stride * channels)
            windows = jnp.concatenate([blocks[:, :-1], blocks[:, 1:]], axis=-1)
        else:
            taps = [
                joined[:, start : start + (frames - 1) * self.stride + 1 : self.stride]
                for start in range(0, size * self.dilation, self.dilation)
            ]
            windows = jnp.concatenate(taps, axis=-1)
        kernel = self.kernel[...].reshape(size * channels, -1)
        y = self.precision.dot(windows, kernel)
        if self.bias is not None:
            y = y + self.bias[...]
        return y, joined[:, joined.shape[1] - past.shape[1] :]


class CausalConvTranspose1d(nnx.Module):
    """Upsampling by `stride`, kernel twice that long; depth-wise has one filter a channel.

    Kernel [C, K, D], depth-wise [K, C]; optional bias [D]. The overhang of a step, kept without the
    bias, is added to the head of the next; only the causal part is returned.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        depthwise: bool = False,
        bias: bool = True,
        precision: Precision,
        rngs: nnx.Rngs,
    ):
        size = 2 * stride
        shape = (size, in_channels) if depthwise else (in_channels, size, out_channels)
        fan_in = size if depthwise else size * in_channels
        self.kernel = normal_init(rngs, shape, precision, fan_in=fan_in)
        self.bias = nnx.Param(jnp.zeros((out_channels,), precision.params)) if bias else None
        self.stride, self.out_channels = stride, out_channels
        self.depthwise, self.precision = depthwise, precision

    def init_history(self, batch: int) -> Float[Array, "B S D"]:
        """Silence before the start."""
        return jnp.zeros((batch, self.stride, self.out_channels), self.precision.compute)

    def __call__(
        self, x: Float[Array, "B T C"], overhang: Float[Array, "B S D"] | None = None
    ) -> tuple[Float[Array, "B U D"], Float[Array, "B S D"]]:
        """Output of U = T * stride samples, and the overhang for the next call."""
        batch, length, _ = x.shape
        past = self.init_history(batch) if overhang is None else overhang
        kernel = self.kernel[...]
        if self.depthwise:
            spread = x[:, :, None, :] * kernel.astype(x.dtype)
        else:
            spread = self.precision.dot(x, kernel)
        head, tail = spread[:, :, : self.stride], spread[:, :, self.stride :]
        tails = jnp.concatenate([past[:, None], tail], axis=1)
        y = (head + tails[:, :-1]).reshape(batch, length * self.stride, self.out_channels)
        if self.bias is not None:
            y = y + self.bias[...]
        return y, tails[:, -1]
