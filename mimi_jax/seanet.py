"""The convolutional ends of the codec. Source: moshi/modules/seanet.py.

Every convolution threads its own history: `x, new = conv(x, old)`. A step passes the histories of
the last call; the full form passes None, which is silence before the start.
"""

from collections.abc import Iterator, Sequence
from itertools import repeat

import jax
from flax import nnx
from jaxtyping import Array, Float

from layers_jax import CausalConv1d, CausalConvTranspose1d, Precision
from mimi_jax.config import SeanetConfig

Histories = list[jax.Array]


def _history(histories: Sequence[jax.Array] | None) -> Iterator[jax.Array | None]:
    """The stored history of each convolution in turn, or None for each."""
    return repeat(None) if histories is None else iter(histories)


class ResidualUnit(nnx.Module):
    """`x + conv1x1(elu(conv(elu(x))))`."""

    def __init__(
        self,
        channels: int,
        config: SeanetConfig,
        dilation: int,
        *,
        precision: Precision,
        rngs: nnx.Rngs,
    ):
        inner = channels // config.compress
        self.conv1 = CausalConv1d(
            channels,
            inner,
            config.residual_kernel_size,
            dilation=dilation,
            precision=precision,
            rngs=rngs,
        )
        self.conv2 = CausalConv1d(inner, channels, 1, precision=precision, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T C"], history: jax.Array | None
    ) -> tuple[Float[Array, "B T C"], jax.Array]:
        """Same shape, and the first convolution's new history."""
        y, history = self.conv1(jax.nn.elu(x), history)
        y, _ = self.conv2(jax.nn.elu(y))
        return x + y, history


class Stage(nnx.Module):
    """Residual units and one change of rate."""

    def __init__(
        self,
        channels: int,
        resample: CausalConv1d | CausalConvTranspose1d,
        config: SeanetConfig,
        *,
        precision: Precision,
        rngs: nnx.Rngs,
    ):
        self.residuals = nnx.List(
            [
                ResidualUnit(
                    channels, config, config.dilation_base**index, precision=precision, rngs=rngs
                )
                for index in range(config.n_residual_layers)
            ]
        )
        self.resample = resample


class SeanetEncoder(nnx.Module):
    """Waveform `[B, T, 1]` to latent `[B, T / hop, D]`."""

    def __init__(self, config: SeanetConfig, *, precision: Precision, rngs: nnx.Rngs):
        def conv(*shape: int, stride: int = 1) -> CausalConv1d:
            return CausalConv1d(*shape, stride=stride, precision=precision, rngs=rngs)

        width = config.n_filters
        self.input = conv(1, width, config.kernel_size)
        stages = []
        for ratio in reversed(config.ratios):
            down = conv(width, 2 * width, 2 * ratio, stride=ratio)
            stages.append(Stage(width, down, config, precision=precision, rngs=rngs))
            width *= 2
        self.stages = nnx.List(stages)
        self.output = conv(width, config.dimension, config.last_kernel_size)

    def __call__(
        self, x: Float[Array, "B T 1"], histories: Histories | None = None
    ) -> tuple[Float[Array, "B U D"], Histories]:
        """Latent columns, and the histories for the next call."""
        past, new = _history(histories), []
        x, history = self.input(x, next(past))
        new.append(history)
        for stage in self.stages:
            for residual in stage.residuals:
                x, history = residual(x, next(past))
                new.append(history)
            x, history = stage.resample(jax.nn.elu(x), next(past))
            new.append(history)
        x, history = self.output(jax.nn.elu(x), next(past))
        return x, [*new, history]

    def init_histories(self, batch: int) -> Histories:
        """Silence before the start, in call order."""
        inner = []
        for stage in self.stages:
            inner += [residual.conv1.init_history(batch) for residual in stage.residuals]
            inner.append(stage.resample.init_history(batch))
        return [self.input.init_history(batch), *inner, self.output.init_history(batch)]


class SeanetDecoder(nnx.Module):
    """Latent `[B, U, D]` to waveform `[B, U * hop, 1]`: the encoder mirrored."""

    def __init__(self, config: SeanetConfig, *, precision: Precision, rngs: nnx.Rngs):
        def conv(*shape: int) -> CausalConv1d:
            return CausalConv1d(*shape, precision=precision, rngs=rngs)

        width = config.n_filters * 2 ** len(config.ratios)
        self.input = conv(config.dimension, width, config.kernel_size)
        stages = []
        for ratio in config.ratios:
            up = CausalConvTranspose1d(
                width, width // 2, stride=ratio, precision=precision, rngs=rngs
            )
            width //= 2
            stages.append(Stage(width, up, config, precision=precision, rngs=rngs))
        self.stages = nnx.List(stages)
        self.output = conv(width, 1, config.last_kernel_size)

    def __call__(
        self, x: Float[Array, "B U D"], histories: Histories | None = None
    ) -> tuple[Float[Array, "B T 1"], Histories]:
        """Samples, and the histories for the next call."""
        past, new = _history(histories), []
        x, history = self.input(x, next(past))
        new.append(history)
        for stage in self.stages:
            x, history = stage.resample(jax.nn.elu(x), next(past))
            new.append(history)
            for residual in stage.residuals:
                x, history = residual(x, next(past))
                new.append(history)
        x, history = self.output(jax.nn.elu(x), next(past))
        return x, [*new, history]

    def init_histories(self, batch: int) -> Histories:
        """Silence before the start, in call order."""
        inner = []
        for stage in self.stages:
            inner.append(stage.resample.init_history(batch))
            inner += [residual.conv1.init_history(batch) for residual in stage.residuals]
        return [self.input.init_history(batch), *inner, self.output.init_history(batch)]
