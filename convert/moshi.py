"""The language model's rule table. Names: the released files, and moshi 0.2.13 (`lm.py`)."""

from __future__ import annotations

from convert.rules import Rule
from helium_jax import MoshiConfig

# Leaves that stay in float32 whatever format the rest is cast to, as in the reference.
ALWAYS_FLOAT32 = "conditioners."
_KERNEL, _WEIGHT = ".kernel", ".weight"


def moshi_rules(config: MoshiConfig) -> list[Rule]:
    """The table of a language model, for reading and writing."""
    return [
        *_audio_embedding(config),
        Rule("text_emb.weight", "text_embedding.table"),
        *_temporal({"l": config.num_layers}),
        Rule("out_norm.alpha", "out_norm.scale", "alpha"),
        Rule("text_linear.weight", "text_head.kernel", "matrix"),
        *(_depth(config) if config.dep_q else []),
        *_extra(config),
        *_conditioners(config),
    ]


def _audio_embedding(config: MoshiConfig) -> list[Rule]:
    rule = Rule("emb.{k}.weight", "audio_embedding.table", "same", {"k": config.n_q})
    return [rule] if config.n_q else []


def _depth(config: MoshiConfig) -> list[Rule]:
    books, sets = {"k": config.dep_q}, {"s": config.num_depth_weight_sets}
    fed_back = {"k": config.dep_q - 1}  # the last codebook never is
    rules = [
        Rule("depformer_in.{s}.weight", "depth.inputs.{s}.kernel", "matrix", sets),
        Rule("depformer_text_emb.weight", "depth.text_embedding.table"),
        Rule("depformer_emb.{k}.weight", "depth.audio_embeddings.{k}.table", "same", fed_back),
        *_depth_layers({"l": config.depformer_num_layers, **sets}),
        Rule("linears.{k}.weight", "depth.heads.{k}.kernel", "matrix", books),
    ]
    if config.depformer_low_rank_embeddings is not None:
        text, audio = "depth.text_embedding", "depth.audio_embeddings.{k}"
        rules += [
            Rule("depformer_text_emb.low_rank.weight", f"{text}.projection.kernel", "matrix"),
            Rule(
                "depformer_emb.{k}.low_rank.weight",
                f"{audio}.projection.kernel",
                "matrix",
                fed_back,
            ),
        ]
    if config.depformer_norm is not None:
        rules.append(Rule("depformer_norms.{k}.alpha", "depth.norms.{k}.scale", "alpha", books))
    return rules


def _extra(config: MoshiConfig) -> list[Rule]:
    heads = {"h": config.extra_heads_num_heads}
    rule = Rule("extra_heads.{h}.weight", "extra_heads.{h}.kernel", "matrix", heads)
    return [rule] if config.extra_heads_num_heads else []


def _conditioners(config: MoshiConfig) -> list[Rule]:
    rules = []
    for index, lut in enumerate(config.conditioners):
        theirs, ours = f"condition_provider.conditioners.{lut.name}", f"conditioners.{index}"
        rules += [
            Rule(f"{theirs}.embed.weight", f"{ours}.table"),
            Rule(f"{theirs}.output_proj.weight", f"{ours}.projection.kernel", "matrix"),
            Rule(f"{theirs}.learnt_padding", f"{ours}.padding", "alpha"),
        ]
    return rules


def lora_rules(config: MoshiConfig) -> list[Rule]:
    """The table of the adapters: two rules for each rule of a matrix."""
    kernels = [rule for rule in moshi_rules(config) if rule.path.endswith(_KERNEL)]
    return [adapter for rule in kernels for adapter in _adapter(rule)]


def _adapter(rule: Rule) -> list[Rule]:
    """An adapter's factors. B has the rows of its matrix, so it moves as that does."""
    names = (rule.torch, *rule.also)
    stems = [name.removesuffix(_WEIGHT) for name in names if name.endswith(_WEIGHT)]
    stem, others = stems[-1], stems[:-1]  # the state dict's own name is the last of a rule
    return [
        Rule(
            f"{stem}.lora_{factor}.weight",
            f"{rule.path.removesuffix(_KERNEL)}.lora_{factor.lower()}",
            transform,
            rule.counts,
            also=tuple(f"{other}.lora_{factor}.weight" for other in others),
        )
        for factor, transform in (("A", "matrix"), ("B", rule.transform))
    ]


def _temporal(counts: dict[str, int]) -> list[Rule]:
    theirs, ours = "transformer.layers.{l}", "temporal.layers.{l}"
    return [
        *_norms(theirs, ours, counts),
        *_attention(theirs, f"{ours}.attention", counts, step="0"),
        *_gated_mlp(f"{theirs}.gating", f"{ours}.mlp", counts),
    ]


def _depth_layers(counts: dict[str, int]) -> list[Rule]:
    """Several weight sets: the released attention tensors hold all of them, step after step."""
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
