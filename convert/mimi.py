"""The codec's rule table. Names: moshi 0.2.13 (`compression.py`, `seanet.py`, `core_vq.py`)."""

from __future__ import annotations

import numpy as np

from convert.rules import Derived, Rule
from mimi_jax.config import MimiConfig, SeanetConfig
from mimi_jax.quantizer import MIN_USAGE


def mimi_rules(config: MimiConfig) -> list[Rule | Derived]:
    """The table of a codec, for reading and writing."""
    return [
        *_seanet(config.seanet),
        *_transformer(config, "encoder_transformer"),
        *_transformer(config, "decoder_transformer"),
        Rule("downsample.conv.conv.conv.weight", "downsample.kernel", "conv"),
        Rule("upsample.convtr.convtr.convtr.weight", "upsample.kernel", "depthwise"),
        *_quantizer("rvq_first", "semantic", 1),
        *_quantizer("rvq_rest", "acoustic", config.quantizer.n_q - 1),
    ]


def seanet_names(config: SeanetConfig, half: str) -> list[str]:
    """Released names of the convolutions of "encoder" or "decoder"."""
    names = [rule.torch for rule in _seanet(config) if isinstance(rule, Rule)]
    return [name for name in names if name.startswith(f"{half}.")]


def _seanet(config: SeanetConfig) -> list[Rule | Derived]:
    """Positions in PyTorch's flat lists count the activations too; ours have names."""
    units, stages = config.n_residual_layers, len(config.ratios)
    width = units + 2  # modules a stage: its residual units, one activation, one change of rate
    last = width * stages + 2
    rules = _conv("encoder.model.0.conv.conv", "encoder.input")
    for stage in range(stages):
        first, ours = 1 + width * stage, f"encoder.stages.{stage}"
        rules += _residuals("encoder", first, ours, units)
        rules += _conv(f"encoder.model.{first + units + 1}.conv.conv", f"{ours}.resample")
    rules += _conv(f"encoder.model.{last}.conv.conv", "encoder.output")

    rules += _conv("decoder.model.0.conv.conv", "decoder.input")
    for stage in range(stages):
        first, ours = 1 + width * stage, f"decoder.stages.{stage}"
        theirs = f"decoder.model.{first + 1}.convtr.convtr"
        rules += _conv(theirs, f"{ours}.resample", "conv_transposed")
        rules += _residuals("decoder", first + 2, ours, units)
    return [*rules, *_conv(f"decoder.model.{last}.conv.conv", "decoder.output")]


def _residuals(half: str, first: int, ours: str, units: int) -> list[Rule | Derived]:
    rules = []
    for unit in range(units):
        block, path = f"{half}.model.{first + unit}.block", f"{ours}.residuals.{unit}"
        rules += _conv(f"{block}.1.conv.conv", f"{path}.conv1")
        rules += _conv(f"{block}.3.conv.conv", f"{path}.conv2")
    return rules


def _conv(theirs: str, ours: str, transform: str = "conv") -> list[Rule | Derived]:
    return [
        Rule(f"{theirs}.weight", f"{ours}.kernel", transform),
        Rule(f"{theirs}.bias", f"{ours}.bias"),
    ]


def _transformer(config: MimiConfig, name: str) -> list[Rule | Derived]:
    layers = {"l": config.transformer.num_layers}
    theirs, ours = f"{name}.transformer.layers.{{l}}", f"{name}.layers.{{l}}"
    attention = f"{theirs}.self_attn"

    def rule(key: str, path: str, transform: str = "same") -> Rule:
        return Rule(f"{theirs}.{key}", f"{ours}.{path}", transform, layers)

    rules: list[Rule | Derived] = [
        *(rule(f"norm{i}.weight", f"norm{i}.scale") for i in (1, 2)),
        *(rule(f"norm{i}.bias", f"norm{i}.bias") for i in (1, 2)),
        Rule(
            f"{attention}.in_proj_weight",
            f"{ours}.attention.qkv.kernel",
            "qkv",
            layers,
            also=(f"{attention}.in_proj.weight", f"{attention}.in_projs.0.weight"),
        ),
        Rule(
            f"{attention}.out_proj.weight",
            f"{ours}.attention.out.kernel",
            "matrix",
            layers,
            also=(f"{attention}.out_projs.0.weight",),
        ),
        rule("linear1.weight", "mlp.up.kernel", "matrix"),
        rule("linear2.weight", "mlp.down.kernel", "matrix"),
    ]
    if config.transformer.layer_scale is not None:
        rules += [rule(f"layer_scale_{i}.scale", f"layer_scale{i}.scale") for i in (1, 2)]
    return rules


def _quantizer(theirs: str, ours: str, levels: int) -> list[Rule | Derived]:
    theirs, ours, counts = f"quantizer.{theirs}", f"quantizer.{ours}", {"i": levels}
    book, path = f"{theirs}.vq.layers.{{i}}._codebook", f"{ours}.codebooks.{{i}}"

    def buffer(name: str, leaf: str, *old: str) -> Rule:
        names = tuple(f"{book}.{other}" for other in old)
        return Rule(f"{book}.{name}", f"{path}.{leaf}", "same", counts, also=names)

    return [
        Rule(f"{theirs}.input_proj.weight", f"{ours}.input_projection.kernel", "pointwise"),
        Rule(f"{theirs}.output_proj.weight", f"{ours}.output_projection.kernel", "pointwise"),
        buffer("embedding_sum", "embedding_sum", "embed_sum", "embed_avg"),
        buffer("cluster_usage", "cluster_usage", "cluster_size"),
        buffer("_initialized", "initialized", "inited"),
        Derived(
            f"{path}.embedding",
            (f"{path}.embedding_sum", f"{path}.cluster_usage"),
            code_vectors,
            counts,
        ),
    ]


def code_vectors(embedding_sum: np.ndarray, cluster_usage: np.ndarray) -> np.ndarray:
    """The mean of the vectors assigned to each code, f32: sums [N, d] over counts [N]."""
    counts = np.maximum(cluster_usage.astype(np.float32), np.float32(MIN_USAGE))
    return embedding_sum.astype(np.float32) / counts[:, None]
