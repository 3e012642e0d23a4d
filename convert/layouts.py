"""Checkpoints in other layouts, seen under the released names: read here, never written.

A layout says of each released tensor which of its own tensors make it up, and how. Whatever of a
file nothing claims keeps its name and is then refused as unexpected, like any stranger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from convert.mimi import seanet_names
from convert.safetensors_io import TensorInfo, Tensors
from convert.transforms import Shape
from helium_jax import MoshiConfig
from mimi_jax import MimiConfig

Move = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Piece:
    """A tensor of the file, and where it goes: its rows follow those of the piece before.

    Attributes:
      name: of the tensor in the file.
      entry: index on its first axis, which the released tensor does not have; None takes it whole.
      heads: how many heads have their rotary pairs in two halves, to be interleaved; 0 for none.
      scale: name of the tensor of scales, for int8 values.
      flat: the values are those of a [1, 1, D] tensor.
    """

    name: str
    entry: int | None = None
    heads: int = 0
    scale: str | None = None
    flat: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors of the file that are used up."""
        return (self.name,) if self.scale is None else (self.name, self.scale)

    def info(self, stored: Mapping[str, TensorInfo]) -> TensorInfo:
        """Shape and format of the piece."""
        found = stored[self.name]
        shape = found.shape if self.entry is None else found.shape[1:]
        if self.flat:
            shape = (1, 1, *shape)
        return TensorInfo(shape, "F32" if self.scale else found.format)

    def read(self, file: Tensors) -> np.ndarray:
        """Its values."""
        if self.entry is None:
            value = file.read(self.name)
        else:
            count = file.tensors[self.name].shape[0]
            value = file.read(self.name, (self.entry, count))[0]
        if self.scale:
            value = dequantised(value, file.read(self.scale))
        if self.heads:
            value = interleaved(value, self.heads)
        return value[None, None] if self.flat else value


# One part in 127, in the precision in which bitsandbytes has it.
_STEP = np.float32(7.874015718698502e-3)


def dequantised(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """f32 rows out of int8 rows and their largest absolute values.

    Source: `int8_vectorwise_dequant` of bitsandbytes, operation by operation.
    """
    return values.astype(np.float32) * scales.astype(np.float32).reshape(-1, 1) * _STEP


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads * 2 * P, in] of first halves, then second, as pairs side by side.

    transformers rotates value i with value i + P of a head, Kyutai 2 i with 2 i + 1.
    """
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)


class ViewedTensors:
    """A file of another layout under the released names.

    Attributes:
      tensors: shape and format of each released tensor whose pieces are all there, and of what is
        in the file and belongs to none.
    """

    def __init__(self, file: Tensors, layout: Mapping[str, Sequence[Piece]]):
        self._file, stored = file, file.tensors
        self._pieces = {
            key: pieces
            for key, pieces in layout.items()
            if all(name in stored for piece in pieces for name in piece.names)
        }
        self.tensors = {key: self._joined(pieces) for key, pieces in self._pieces.items()}
        used = {n for pieces in self._pieces.values() for piece in pieces for n in piece.names}
        self.tensors.update({key: info for key, info in stored.items() if key not in used})

    def _joined(self, pieces: Sequence[Piece]) -> TensorInfo:
        infos = [piece.info(self._file.tensors) for piece in pieces]
        first, formats = infos[0], {info.format for info in infos}
        if len(infos) == 1:
            return first
        shape: Shape = (0,)  # of pieces that do not fit together: the wrong one in any case
        if all(info.shape and info.shape[1:] == first.shape[1:] for info in infos):
            shape = (sum(info.shape[0] for info in infos), *first.shape[1:])
        # Unequal formats are reported as a format that no table accepts.
        return TensorInfo(shape, formats.pop() if len(formats) == 1 else "/".join(sorted(formats)))

    def read(self, key: str, part: tuple[int, int] = (0, 1)) -> np.ndarray:
        """Tensor `key`, or block i of its n equal row blocks for `part = (i, n)`."""
        if key not in self._pieces:
            return self._file.read(key, part)
        index, count = part
        pieces = self._pieces[key]
        if count > 1 and len(pieces) % count == 0:
            share = len(pieces) // count  # a block of whole pieces: the others are not read
            pieces, count = pieces[index * share : (index + 1) * share], 1
        values = [piece.read(self._file) for piece in pieces]
        value = values[0] if len(values) == 1 else np.concatenate(values)
        rows = value.shape[0] // count
        return value if count == 1 else value[index * rows : (index + 1) * rows]


class FilteredTensors:
    """The tensors of a file that begin with a prefix, without it; or all others."""

    def __init__(self, file: Tensors, prefix: str, *, inside: bool):
        self._file, self._cut = file, prefix if inside else ""
        self.tensors = {
            key.removeprefix(self._cut): info
            for key, info in file.tensors.items()
            if key.startswith(prefix) == inside
        }

    def read(self, key: str, part: tuple[int, int] = (0, 1)) -> np.ndarray:
        """Tensor `key`, or block i of its n equal row blocks for `part = (i, n)`."""
        return self._file.read(self._cut + key, part)


CODEC_PREFIX = "audio_encoder."  # of the codec that transformers keeps in the file of its Moshi


def layout_of(names: Iterable[str]) -> str:
    """Which layout a file has: "kyutai", "q8", "helium" or, of transformers, "moshi" or "mimi"."""
    names = set(names)
    if any(name.startswith(("decoder.model.embed_tokens.", "depth_decoder.")) for name in names):
        return "moshi"
    if any(".semantic_residual_vector_quantizer." in name for name in names):
        return "mimi"
    if any(name.startswith("model.layers.") for name in names):
        return "helium"
    return "q8" if any(name.endswith("weight_scb") for name in names) else "kyutai"


def as_released(file: Tensors, config: MoshiConfig | MimiConfig) -> Tensors:
    """The part of a file that holds a model, under the released names whatever layout it has."""
    layout = layout_of(file.tensors)
    if layout == "moshi":
        file = FilteredTensors(file, CODEC_PREFIX, inside=isinstance(config, MimiConfig))
        layout = layout_of(file.tensors)
    if isinstance(config, MimiConfig):
        return ViewedTensors(file, transformers_mimi(file, config)) if layout == "mimi" else file
    if layout == "moshi":
        return ViewedTensors(file, transformers_moshi(config))
    if layout == "helium":
        return ViewedTensors(file, transformers_helium(config))
    return ViewedTensors(file, quantised(file.tensors)) if layout == "q8" else file


def quantised(stored: Mapping[str, TensorInfo]) -> dict[str, list[Piece]]:
    """int8 weights with their scales, as moshi's `QLinear` stores them; the rest as it is."""
    return {
        key: [Piece(key, scale=f"{key}_scb")]
        for key, info in stored.items()
        if f"{key}_scb" in stored and info.format == "I8"
    }


def transformers_moshi(config: MoshiConfig) -> dict[str, list[Piece]]:
    """Moshi as transformers has it: separate q, k, v with rotary halves; steps on a first axis.

    Source: transformers 5.24, modeling_moshi.py.
    """
    groups = config.num_heads // config.kv_repeat
    made = {
        "text_emb.weight": [Piece("decoder.model.embed_tokens.weight")],
        "text_linear.weight": [Piece("decoder.lm_head.weight")],
        "out_norm.alpha": [Piece("decoder.model.norm.weight", flat=True)],
        "depformer_text_emb.weight": [Piece("depth_decoder.text_embed_tokens.weight")],
    }
    made |= {f"emb.{k}.weight": [Piece(f"embed_tokens.{k}.weight")] for k in range(config.n_q)}
    for layer in range(config.num_layers):
        ours, theirs = f"transformer.layers.{layer}", f"decoder.model.layers.{layer}"
        attention = f"{theirs}.self_attn"
        made |= _norms(ours, theirs)
        made[f"{ours}.self_attn.in_proj_weight"] = [
            Piece(f"{attention}.q_proj.linear.weight", heads=config.num_heads),
            Piece(f"{attention}.k_proj.linear.weight", heads=groups),
            Piece(f"{attention}.v_proj.linear.weight"),
        ]
        made[f"{ours}.self_attn.out_proj.weight"] = [Piece(f"{attention}.o_proj.linear.weight")]
        for name, fc in (("linear_in", "fc1"), ("linear_out", "fc2")):
            made[f"{ours}.gating.{name}.weight"] = [Piece(f"{theirs}.mlp.{fc}.weight")]
    return made | _transformers_depth(config)


def _transformers_depth(config: MoshiConfig) -> dict[str, list[Piece]]:
    """The depth transformer has no positions: its q and k are as they are."""
    steps, made = range(config.dep_q), {}
    for k in steps:
        made[f"depformer_in.{k}.weight"] = [Piece("depth_decoder.input_projections.weight", k)]
        made[f"linears.{k}.weight"] = [Piece("depth_decoder.lm_heads.weight", k)]
    for k in range(config.dep_q - 1):
        made[f"depformer_emb.{k}.weight"] = [Piece(f"depth_decoder.embed_tokens.{k}.weight")]
    for layer in range(config.depformer_num_layers):
        ours, theirs = f"depformer.layers.{layer}", f"depth_decoder.layers.{layer}"
        attention = f"{theirs}.self_attn"
        made |= _norms(ours, theirs)
        made[f"{ours}.self_attn.in_proj_weight"] = [
            Piece(f"{attention}.{x}_proj.linear.weight", k) for k in steps for x in "qkv"
        ]
        made[f"{ours}.self_attn.out_proj.weight"] = [
            Piece(f"{attention}.o_proj.linear.weight", k) for k in steps
        ]
        for k in steps:
            for name, fc in (("linear_in", "fc1"), ("linear_out", "fc2")):
                made[f"{ours}.gating.{k}.{name}.weight"] = [Piece(f"{theirs}.mlp.{fc}.weight", k)]
    return made


def _norms(ours: str, theirs: str) -> dict[str, list[Piece]]:
    names = {"norm1": "input_layernorm", "norm2": "post_attention_layernorm"}
    return {
        f"{ours}.{norm}.alpha": [Piece(f"{theirs}.{name}.weight", flat=True)]
        for norm, name in names.items()
    }


def transformers_helium(config: MoshiConfig) -> dict[str, list[Piece]]:
    """Helium-1 as transformers has it; it rotates pairs side by side, as Kyutai does.

    Source: transformers 5.24, modeling_helium.py.
    """
    made = {
        "text_emb.weight": [Piece("model.embed_tokens.weight")],
        "text_linear.weight": [Piece("lm_head.weight")],
        "out_norm.alpha": [Piece("model.norm.weight", flat=True)],
    }
    for layer in range(config.num_layers):
        ours, theirs = f"transformer.layers.{layer}", f"model.layers.{layer}"
        made |= _norms(ours, theirs)
        made[f"{ours}.self_attn.in_proj_weight"] = [
            Piece(f"{theirs}.self_attn.{x}_proj.weight") for x in "qkv"
        ]
        made[f"{ours}.self_attn.out_proj.weight"] = [Piece(f"{theirs}.self_attn.o_proj.weight")]
        made[f"{ours}.gating.linear_in.weight"] = [
            Piece(f"{theirs}.mlp.{x}_proj.weight") for x in ("gate", "up")
        ]
        made[f"{ours}.gating.linear_out.weight"] = [Piece(f"{theirs}.mlp.down_proj.weight")]
    return made


def transformers_mimi(file: Tensors, config: MimiConfig) -> dict[str, list[Piece]]:
    """Mimi as transformers has it: flat names as published, nested ones since version 5.

    Source: transformers 5.24, modeling_mimi.py.
    """
    nested = any(name.startswith("encoder.encoder_seanet.") for name in file.tensors)
    made: dict[str, list[Piece]] = {}
    for half in ("encoder", "decoder"):
        prefix = f"{half}." if nested else ""
        seanet = f"{half}.{half}_seanet" if nested else half
        made |= _transformers_seanet(half, seanet, config)
        made |= _transformers_blocks(half, prefix, config)
    down, up = ("encoder.", "decoder.") if nested else ("", "")
    made["downsample.conv.conv.conv.weight"] = [Piece(f"{down}downsample.conv.weight")]
    made["upsample.convtr.convtr.convtr.weight"] = [Piece(f"{up}upsample.conv.weight")]
    for ours, theirs, levels in (
        ("rvq_first", "semantic", 1),
        ("rvq_rest", "acoustic", config.quantizer.n_q - 1),
    ):
        ours, theirs = f"quantizer.{ours}", f"quantizer.{theirs}_residual_vector_quantizer"
        for name in ("input_proj.weight", "output_proj.weight"):
            made[f"{ours}.{name}"] = [Piece(f"{theirs}.{name}")]
        for i in range(levels):
            book, layer = f"{ours}.vq.layers.{i}._codebook", f"{theirs}.layers.{i}.codebook"
            made[f"{book}.embedding_sum"] = [Piece(f"{layer}.embed_sum")]
            made[f"{book}.cluster_usage"] = [Piece(f"{layer}.cluster_usage")]
            made[f"{book}._initialized"] = [Piece(f"{layer}.initialized")]
    return made


def _transformers_seanet(half: str, theirs: str, config: MimiConfig) -> dict[str, list[Piece]]:
    """Positions are those of Kyutai's list; only the wrappers around a convolution differ."""
    made = {}
    for name in seanet_names(config.seanet, half):
        plain = name.replace(".conv.conv.", ".conv.").replace(".convtr.convtr.", ".conv.")
        made[name] = [Piece(plain.replace(f"{half}.model.", f"{theirs}.layers."))]
    return made


def _transformers_blocks(half: str, prefix: str, config: MimiConfig) -> dict[str, list[Piece]]:
    made, heads = {}, config.transformer.num_heads
    same = {"linear1.weight": "mlp.fc1.weight", "linear2.weight": "mlp.fc2.weight"}
    same |= {f"norm1.{x}": f"input_layernorm.{x}" for x in ("weight", "bias")}
    same |= {f"norm2.{x}": f"post_attention_layernorm.{x}" for x in ("weight", "bias")}
    same |= {"layer_scale_1.scale": "self_attn_layer_scale.scale"}
    same |= {"layer_scale_2.scale": "mlp_layer_scale.scale"}
    same |= {"self_attn.out_proj.weight": "self_attn.o_proj.weight"}
    for layer in range(config.transformer.num_layers):
        ours = f"{half}_transformer.transformer.layers.{layer}"
        theirs = f"{prefix}{half}_transformer.layers.{layer}"
        made |= {f"{ours}.{key}": [Piece(f"{theirs}.{name}")] for key, name in same.items()}
        halves = [Piece(f"{theirs}.self_attn.{x}_proj.weight", heads=heads) for x in "qkv"]
        halves[2] = replace(halves[2], heads=0)
        made[f"{ours}.self_attn.in_proj_weight"] = halves
    return made
