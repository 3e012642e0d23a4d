"""Shapes of the codec, read from and written to the layout of Kyutai's `mimi_config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from layers_jax import TransformerConfig
from layers_jax.attention import RingRule


@dataclass(frozen=True, kw_only=True)
class SeanetConfig:
    """The convolutional encoder and its mirror, the decoder.

    Attributes:
      dimension: channels D of the latent.
      n_filters: channels next to the waveform; doubled at every stage inward.
      n_residual_layers: residual units a stage; their dilation grows by `dilation_base`.
      compress: a residual unit's inner width is its channels over this.
      kernel_size, residual_kernel_size, last_kernel_size: in samples.
      ratios: strides in decoder order; the encoder uses them reversed.
    """

    dimension: int = 512
    n_filters: int = 64
    n_residual_layers: int = 1
    compress: int = 2
    dilation_base: int = 2
    kernel_size: int = 7
    residual_kernel_size: int = 3
    last_kernel_size: int = 3
    ratios: tuple[int, ...] = (8, 6, 5, 4)

    @property
    def hop_samples(self) -> int:
        """Samples a latent column covers before the last down-sampling."""
        return prod(self.ratios)


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """Split residual vector quantizer: one semantic codebook, the others acoustic.

    Attributes:
      dimension: width d of a code vector.
      n_q: codebooks in the checkpoint.
      bins: entries of a codebook.
    """

    dimension: int = 256
    n_q: int = 32
    bins: int = 2048


@dataclass(frozen=True, kw_only=True)
class MimiConfig:
    """A codec.

    Attributes:
      sample_rate: Hz.
      frame_rate: frames a second.
      seanet, quantizer, transformer: the parts; both transformers have the same shape.
      num_codebooks: how many of the checkpoint's codebooks are used, K.
    """

    sample_rate: int = 24_000
    frame_rate: float = 12.5
    seanet: SeanetConfig
    quantizer: QuantizerConfig
    transformer: TransformerConfig
    num_codebooks: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.num_codebooks <= self.quantizer.n_q:
            raise ValueError(
                f"num_codebooks is {self.num_codebooks}, expected 1 to n_q = {self.quantizer.n_q}"
            )
        if self.transformer.dim != self.seanet.dimension:
            raise ValueError(
                f"transformer d_model is {self.transformer.dim}, expected the seanet dimension "
                f"{self.seanet.dimension}"
            )
        if self.frame_samples != self.resample_stride * self.seanet.hop_samples:
            raise ValueError(
                f"frame_rate is {self.frame_rate}, expected sample_rate {self.sample_rate} over a "
                f"multiple of the hop {self.seanet.hop_samples}"
            )

    @property
    def frame_samples(self) -> int:
        """Samples S of a frame (1920 for the released codec)."""
        return round(self.sample_rate / self.frame_rate)

    @property
    def resample_stride(self) -> int:
        """Latent columns a frame: the stride between the transformers and the quantizer."""
        return self.frame_samples // self.seanet.hop_samples

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, num_codebooks: int = 8, ring: RingRule = "kyutai"
    ) -> "MimiConfig":
        """The config that a `mimi_config.json` describes.

        Raises:
          ValueError: a key is missing, unknown, or has a value that no released codec uses.
        """
        top = _Section("mimi config", values, ("sample_rate", "channels", "frame_rate"))
        top.check("channels", 1)
        seanet = _Section("seanet", top.section("seanet"), tuple(_SEANET_FIXED))
        for key, fixed in _SEANET_FIXED.items():
            seanet.check(key, fixed)
        shape = {name: seanet.take(name) for name in SeanetConfig.__dataclass_fields__}
        shape["ratios"] = tuple(shape["ratios"])
        quantizer = _Section("quantizer", top.section("quantizer"), ())
        transformer = _Section("transformer", top.section("transformer"), tuple(_BLOCK_FIXED))
        for key, fixed in _BLOCK_FIXED.items():
            transformer.check(key, fixed)
        config = cls(
            sample_rate=top.take("sample_rate"),
            frame_rate=top.take("frame_rate"),
            seanet=SeanetConfig(**shape),
            quantizer=QuantizerConfig(
                **{name: quantizer.take(name) for name in QuantizerConfig.__dataclass_fields__}
            ),
            transformer=TransformerConfig(
                dim=transformer.take("d_model"),
                num_heads=transformer.take("num_heads"),
                num_layers=transformer.take("num_layers"),
                hidden=transformer.take("dim_feedforward"),
                context=transformer.take("context"),
                max_period=transformer.take("max_period"),
                layer_scale=transformer.take("layer_scale"),
                norm="layer",
                mlp="gelu",
                ring=ring,
            ),
            num_codebooks=num_codebooks,
        )
        dim = config.seanet.dimension
        for key in ("input_dimension", "output_dimension"):
            quantizer.check(key, dim)
        transformer.check("input_dimension", dim)
        transformer.check("output_dimensions", [dim])
        for section in (top, seanet, quantizer, transformer):
            section.close()
        return config

    def to_dict(self) -> dict[str, Any]:
        """The `mimi_config.json` of this codec; `num_codebooks` and the ring rule are not in it."""
        dim, block = self.seanet.dimension, self.transformer
        seanet = {name: getattr(self.seanet, name) for name in SeanetConfig.__dataclass_fields__}
        return {
            "sample_rate": self.sample_rate,
            "channels": 1,
            "frame_rate": self.frame_rate,
            "seanet": {**_SEANET_FIXED, **seanet, "ratios": list(self.seanet.ratios)},
            "quantizer": {
                "dimension": self.quantizer.dimension,
                "n_q": self.quantizer.n_q,
                "bins": self.quantizer.bins,
                "input_dimension": dim,
                "output_dimension": dim,
            },
            "transformer": {
                **_BLOCK_FIXED,
                "d_model": block.dim,
                "num_heads": block.num_heads,
                "num_layers": block.num_layers,
                "layer_scale": block.layer_scale,
                "context": block.context,
                "max_period": block.max_period,
                "dim_feedforward": block.hidden,
                "input_dimension": dim,
                "output_dimensions": [dim],
            },
        }


_SEANET_FIXED = {
    "channels": 1,
    "causal": True,
    "activation": "ELU",
    "disable_norm_outer_blocks": 0,
    "norm": "none",
    "pad_mode": "constant",
    "true_skip": True,
}
_BLOCK_FIXED = {
    "causal": True,
    "conv_layout": True,
    "gating": "none",
    "norm": "layer_norm",
    "positional_embedding": "rope",
}


class _Section:
    """A JSON object whose every key must be asked for: the others are unknown switches."""

    def __init__(self, name: str, values: Mapping[str, Any], optional: tuple[str, ...]):
        self.name, self.values, self.optional = name, values, optional
        self.asked: set[str] = set()

    def take(self, key: str) -> Any:
        self.asked.add(key)
        if key not in self.values:
            raise ValueError(f"{self.name} has no {key!r}, expected one; is this a Mimi config?")
        return self.values[key]

    def section(self, key: str) -> Mapping[str, Any]:
        value = self.take(key)
        if not isinstance(value, Mapping):
            raise ValueError(f"{self.name} {key!r} is {value!r}, expected an object")
        return value

    def check(self, key: str, expected: Any) -> None:
        self.asked.add(key)
        if key in self.values and self.values[key] != expected:
            raise ValueError(
                f"{self.name} {key!r} is {self.values[key]!r}, expected {expected!r}: "
                "no released codec uses another value and it is not implemented"
            )

    def close(self) -> None:
        unknown = sorted(set(self.values) - self.asked - set(self.optional))
        if unknown:
            raise ValueError(
                f"{self.name} has unknown switches {unknown}; remove them or use a version of "
                "moshi-jax that knows them"
            )


def mimi_24khz(num_codebooks: int = 8) -> MimiConfig:
    """The released codec (96.2 M values, 32 codebooks)."""
    return MimiConfig(
        seanet=SeanetConfig(),
        quantizer=QuantizerConfig(),
        transformer=TransformerConfig(
            dim=512,
            num_heads=8,
            num_layers=8,
            hidden=2048,
            context=250,
            norm="layer",
            mlp="gelu",
            layer_scale=0.01,
        ),
        num_codebooks=num_codebooks,
    )


def nano() -> MimiConfig:
    """The same architecture at a size for tests and laptops."""
    full = mimi_24khz()
    return replace(
        full,
        seanet=replace(full.seanet, dimension=64, n_filters=4),
        quantizer=QuantizerConfig(dimension=32, n_q=12, bins=64),
        transformer=replace(
            full.transformer, dim=64, num_heads=4, num_layers=2, hidden=128, context=20
        ),
    )
