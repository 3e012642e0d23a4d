"""Configs of transformers as Kyutai's `config.json` would say them, and what is refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from convert.errors import ConversionError
from helium_jax.config import gated_width

_COPY = "copy the PyTorch release of the same model"


def is_transformers(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is one of transformers, by keys that Kyutai's never has."""
    return "hidden_size" in config or "transformers_version" in config


def from_transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Kyutai's `config.json` for a Moshi or a Helium of transformers; absent keys have defaults.

    Raises:
      ValueError: it is another model, or one that the released code could not express.
    """
    kind = config.get("model_type")
    if kind == "moshi":
        return _moshi(config)
    if kind == "helium":
        return _helium(config)
    raise ValueError(
        f"config.json is of transformers and model_type {kind!r}, expected 'moshi' or 'helium'"
    )


def _moshi(config: Mapping[str, Any]) -> dict[str, Any]:
    depth = config.get("depth_decoder_config") or {}
    books = config.get("num_codebooks", 8)
    dim, depth_dim = config.get("hidden_size", 4096), depth.get("hidden_size", 1024)
    depth_wide = feedforward(depth_dim, depth.get("ffn_dim", 5632) // 2)
    card = (config.get("audio_encoder_config") or {}).get("codebook_size", 2048)
    delays = [0, *[1] * (books - 1)]
    return {
        "model_type": "moshi",
        **_temporal(config, dim, config.get("ffn_dim", 22_528) // 2, layers=32, heads=32),
        "context": config.get("sliding_window", 3000),
        "max_period": _theta(config, 10_000),
        "text_card": config.get("vocab_size", 32_000),
        "n_q": 2 * books,
        "dep_q": books,
        "card": config.get("audio_vocab_size") or card,
        "delays": [0, *delays, *delays],
        "depformer_dim": depth_dim,
        "depformer_dim_feedforward": depth_wide,
        "depformer_num_heads": depth.get("num_attention_heads", 16),
        "depformer_num_layers": depth.get("num_hidden_layers", 6),
        "depformer_kv_repeat": _repeat(depth, depth.get("num_attention_heads", 16)),
    }


def _helium(config: Mapping[str, Any]) -> dict[str, Any]:
    """A text model; its table has no row for an initial token, so it counts one word less."""
    heads, dim = config.get("num_attention_heads", 20), config.get("hidden_size", 2560)
    if (width := config.get("head_dim", 128)) * heads != dim:
        raise ValueError(f"head_dim is {width}, expected hidden_size / heads = {dim / heads:g}")
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise ValueError("its matrices have biases, expected none: that is no released Helium")
    return {
        "model_type": "helium",
        **_temporal(config, dim, config.get("intermediate_size", 7040), layers=24, heads=20),
        "context": config.get("max_position_embeddings", 4096),
        "max_period": _theta(config, 100_000),
        "text_card": config.get("vocab_size", 48_000) - 1,
        "text_card_out": config.get("vocab_size", 48_000),
        "n_q": 0,
        "dep_q": 0,
        "card": 2048,
        "delays": [0],
    }


def _temporal(
    config: Mapping[str, Any], dim: int, hidden: int, *, layers: int, heads: int
) -> dict[str, Any]:
    wrong = {
        key: config[key]
        for key, only in (("hidden_act", "silu"), ("rms_norm_eps", 1e-8))
        if key in config and config[key] != only
    }
    if wrong:
        raise ValueError(f"has {wrong}, expected silu and an epsilon of 1e-8")
    heads = config.get("num_attention_heads", heads)
    return {
        "dim": dim,
        "num_heads": heads,
        "num_layers": config.get("num_hidden_layers", layers),
        "kv_repeat": _repeat(config, heads),
        "hidden_scale": feedforward(dim, hidden) / dim,
    }


def _repeat(config: Mapping[str, Any], heads: int) -> int:
    return heads // (config.get("num_key_value_heads") or heads)


def _theta(config: Mapping[str, Any], default: float) -> float:
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default" or config.get("rope_scaling"):
        raise ValueError("its rotary positions are scaled, expected the plain ones")
    return rope.get("rope_theta", config.get("rope_theta", default))


def feedforward(dim: int, hidden: int) -> int:
    """The `dim_feedforward` for which Kyutai's rule gives a gated block this hidden width.

    Raises:
      ValueError: there is none.
    """
    for wide in (4 * dim, -(-3 * hidden // 2)):
        if gated_width(dim, wide) == hidden:
            return wide
    raise ValueError(f"no dim_feedforward gives a gated width of {hidden} at {dim}")


def refuse_file(path: Path) -> None:
    """Refuses a file that is not safetensors, saying what it is.

    Raises:
      ConversionError: it is a pickle or a GGUF.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"GGUF":
        problem = f"a GGUF file of llama.cpp or candle: its blocks are quantised; {_COPY}"
    elif start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
        problem = (
            "a pickle of PyTorch, expected safetensors: unpickling runs what the file says;"
            " save it again with safetensors.torch.save_file"
        )
    else:
        return
    raise ConversionError([problem], subject=str(path))


def refuse_tensors(names: Iterable[str], *, subject: str) -> None:
    """Refuses a layout that is known and not read, with the reason.

    Raises:
      ConversionError: the names are those of MLX, candle, MoshiVis or a speech synthesiser.
    """
    names = set(names)

    def some(*parts: str) -> bool:
        return any(part in name for name in names for part in parts)

    def starts(*parts: str) -> bool:
        return any(name.startswith(parts) for name in names)

    if starts("depformer.slices.", "audio_embs."):
        bits = "4- or 8-bit MLX weights" if some(".scales") else "MLX weights"
        reason = f"{bits}: norms of the depth transformer are duplicated and rows regrouped"
    elif starts(*(f"depformer.{k}." for k in range(64))):
        reason = "candle weights: the depth transformer is regrouped by step"
    elif some("cross_attention.gate", "xa_gate", "image_prefix", "vision_encoder."):
        reason = "MoshiVis adapters: attention to images is not implemented"
    elif some("cross_attention", "norm_cross", "speaker_wavs"):
        reason = "a speech synthesis model: conditions by cross attention are not implemented"
    elif starts("text_emb.out1", "text_emb.out2"):
        reason = "a second text stream in the text token (demux): it is not implemented"
    else:
        return
    raise ConversionError([f"{reason}; {_COPY}"], subject=subject)
