"""The language model's rule table. Names: the released files, and moshi 0.2.13 (`lm.py`)."""

from __future__ import annotations

from convert.rules import Rule
from helium_jax import MoshiConfig


def moshi_rules(config: MoshiConfig) -> list[Rule]:
    """The table of a language model, for reading and writing."""
    books = {"k": config.dep_q}
    return [
        Rule("emb.{k}.weight", "audio_embedding.table", "same", {"k": config.n_q}),
        Rule("text_emb.weight", "text_embedding.table"),
        *_temporal({"l": config.num_layers}),
        Rule("out_norm.alpha", "out_norm.scale", "alpha"),
        Rule("text_linear.weight", "text_head.kernel", "matrix"),
        Rule("depformer_in.{k}.weight", "depth.inputs.{k}.kernel", "matrix", books),
        Rule("depformer_text_emb.weight", "depth.text_embedding.table"),
        Rule(
            "depformer_emb.{k}.weight",
            "depth.audio_embeddings.{k}.table",
            "same",
            {"k": config.dep_q - 1},  # the last codebook is never fed back
        ),
        *_depth({"l": config.depformer_num_layers, "s": config.dep_q}),
        Rule("linears.{k}.weight", "depth.heads.{k}.kernel", "matrix", books),
    ]


def _temporal(counts: dict[str, int]) -> list[Rule]:
    theirs, ours = "transformer.layers.{l}", "temporal.layers.{l}"
    return [
        *_norms(theirs, ours, counts),
        *_attention(theirs, f"{ours}.attention", counts, step="0"),
        *_gated_mlp(f"{theirs}.gating", f"{ours}.mlp", counts),
    ]


def _depth(counts: dict[str, int]) -> list[Rule]:
    """A weight set a codebook: the released attention tensors hold all of them, step after step."""
    theirs, ours = "depformer.layers.{l}", "depth.layers.{l}"
    return [
        *_norms(theirs, ours, {"l": counts["l"]}),
        *_attention(theirs, f"{ours}.attention.{{s}}", counts, step="{s}"),
        *_gated_mlp(f"{theirs}.gating.{{s}}", f"{ours}.mlp.{{s}}", counts),
    ]


def _norms(theirs: str, ours: str, counts: dict[str, int]) -> list[Rule]:
    return [
        Rule(f"{theirs}.norm{i}.alpha", f"{ours}.norm{i}.scale", "alpha", counts) for i in (1, 2)
    ]


def _attention(theirs: str, ours: str, counts: dict[str, int], *, step: str) -> list[Rule]:
    """Fused names as released, and the names a step of moshi 0.2's own state dict."""
    attention = f"{theirs}.self_attn"
    return [
        Rule(
            f"{attention}.in_proj_weight",
            f"{ours}.qkv.kernel",
            "qkv",
            counts,
            also=(f"{attention}.in_proj.weight", f"{attention}.in_projs.{step}.weight"),
        ),
        Rule(
            f"{attention}.out_proj.weight",
            f"{ours}.out.kernel",
            "matrix",
            counts,
            also=(f"{attention}.out_projs.{step}.weight",),
        ),
    ]


def _gated_mlp(theirs: str, ours: str, counts: dict[str, int]) -> list[Rule]:
    return [
        Rule(f"{theirs}.linear_in.weight", f"{ours}.gate_up.kernel", "gate_up", counts),
        Rule(f"{theirs}.linear_out.weight", f"{ours}.down.kernel", "matrix", counts),
    ]
