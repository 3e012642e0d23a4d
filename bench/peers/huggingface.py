"""`transformers.MimiModel`: whole files only, since its decoder keeps no state between calls.

Its copy of the weights has other names, and query and key channels in half-split rotary order.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

__all__ = ["build", "rename"]

# Applied in order to every released name; what they become is what transformers 5 calls them.
_NAMES = [
    (r"^(en|de)coder\.model\.", r"\1coder.\1coder_seanet.layers."),
    (r"\.(conv|convtr)\.\1\.(?=weight|bias)", r".conv."),
    (r"^downsample\.conv\.conv\.", r"encoder.downsample.conv."),
    (r"^upsample\.convtr\.conv\.", r"decoder.upsample.conv."),
    (r"^(en|de)coder_transformer\.transformer\.", r"\1coder.\1coder_transformer."),
    (r"\.norm1\.", r".input_layernorm."),
    (r"\.norm2\.", r".post_attention_layernorm."),
    (r"\.linear1\.", r".mlp.fc1."),
    (r"\.linear2\.", r".mlp.fc2."),
    (r"\.layer_scale_1\.", r".self_attn_layer_scale."),
    (r"\.layer_scale_2\.", r".mlp_layer_scale."),
    (r"self_attn\.out_proj\.", r"self_attn.o_proj."),
    (r"\.rvq_first\.", r".semantic_residual_vector_quantizer."),
    (r"\.rvq_rest\.", r".acoustic_residual_vector_quantizer."),
    (r"\.vq\.layers\.", r".layers."),
    (r"\._codebook\._?", r".codebook."),
    (r"\.embedding_sum$", r".embed_sum"),
]


def rename(tensors: Mapping[str, np.ndarray], *, num_heads: int) -> dict[str, np.ndarray]:
    """Released names and layouts to those of `transformers.MimiModel`."""
    renamed = {}
    for name, value in tensors.items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        if name.endswith("self_attn.in_proj_weight"):
            stem = name.removesuffix("in_proj_weight")
            queries, keys, values = np.split(value, 3)
            renamed[f"{stem}q_proj.weight"] = _half_split(queries, num_heads)
            renamed[f"{stem}k_proj.weight"] = _half_split(keys, num_heads)
            renamed[f"{stem}v_proj.weight"] = values
        else:
            renamed[name] = value
    return renamed


def _half_split(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows of each head from neighbouring pairs (2i, 2i + 1) to pairs (i, i + H/2)."""
    pairs = rows.reshape(num_heads, -1, 2, rows.shape[-1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


class HuggingFace:
    """See `bench.peers.Peer`."""

    streams = False

    def __init__(self, weights: Path, num_codebooks: int, threads: int):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            from safetensors.numpy import load_file
            from transformers import MimiConfig, MimiModel

            torch.set_num_threads(threads)
            config = MimiConfig()
            model = MimiModel(config).eval()
        tensors = rename(load_file(weights), num_heads=config.num_attention_heads)
        given = {name: torch.from_numpy(value) for name, value in tensors.items()}
        model.load_state_dict(given, strict=True)
        self._torch, self._model, self._num_codebooks = torch, model, num_codebooks

    def reset(self) -> None:
        pass

    def encode_frame(self, pcm: Float[np.ndarray, " S"]) -> Int[np.ndarray, " K"]:
        raise NotImplementedError("transformers has no streaming codec step")

    def decode_frame(self, codes: Int[np.ndarray, " K"]) -> Float[np.ndarray, " S"]:
        raise NotImplementedError("transformers has no streaming codec step")

    def encode_file(self, pcm: Float[np.ndarray, " S"]) -> Int[np.ndarray, "K T"]:
        with self._torch.no_grad():
            given = self._torch.from_numpy(pcm)[None, None]
            out = self._model.encode(given, num_quantizers=self._num_codebooks)
        return out.audio_codes[0].numpy()


def build(weights: Path, num_codebooks: int, threads: int) -> HuggingFace:
    """Transformers on a CPU."""
    return HuggingFace(weights, num_codebooks, threads)
