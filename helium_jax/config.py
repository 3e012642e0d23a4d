"""Shapes of the language model, read from and written to the keys of Kyutai's `config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layers_jax import TransformerConfig
from layers_jax.attention import RingRule

_ROPE = {"rope": "interleaved", "rope_concat": "half"}
# Switches with one implemented value: that of every released Moshi and PersonaPlex.
_FIXED = {
    "causal": True,
    "layer_scale": None,
    "gating": "silu",
    "norm": "rms_norm_f32",
    "depformer_layer_scale": None,
    "depformer_multi_linear": True,
    "depformer_gating": "silu",
    "depformer_pos_emb": "none",
    "depformer_weights_per_step": True,
}
# Read by the reference and then without effect on its results.
_INERT = ("depformer_context", "depformer_max_period", "depformer_causal")
# Of the loader, not of the model: file names, and defaults for sampling.
LOADER_KEYS = (
    "moshi_name",
    "mimi_name",
    "mimi_config_name",
    "tokenizer_name",
    "model_type",
    "model_id",
    "lm_gen_config",
)
# Switches that the reference defines and this version lacks; harmless while they are off.
_OFF = {
    "text_card_out": None,
    "depformer_weights_per_step_schedule": None,
    "depformer_low_rank_embeddings": None,
    "depformer_norm": None,
    "demux_second_stream": False,
    "cross_attention": False,
    "extra_heads_num_heads": 0,
    "conditioners": None,
    "fuser": None,
    "norm_emb": False,
    "bias_proj": False,
    "quantize": False,
    "lora": False,
    "lora_name": None,
}


@dataclass(frozen=True, kw_only=True)
class MoshiConfig:
    """A model; fields are named as in `config.json`, defaults are those of Moshi 7B.

    Streams are text, then `n_q` audio codebooks: `dep_q` that the model generates, then the user's.

    Attributes:
      dim: temporal width D.
      text_card, card: text and audio vocabulary; each table has one more row, the initial token.
      existing_text_padding_id: the PAD token.
      n_q, dep_q: audio codebooks fed, and generated.
      num_heads, num_layers, hidden_scale, context, max_period, kv_repeat, positional_embedding:
        temporal transformer; `context` in frames.
      depformer_*: depth transformer, one weight set a codebook.
      delays: frames by which each stream is shifted, `n_q + 1` of them.
      ring: whose ring rule holds once the context is full (not a key of `config.json`).
    """

    dim: int = 4096
    text_card: int = 32_000
    existing_text_padding_id: int = 3
    n_q: int = 16
    dep_q: int = 8
    card: int = 2048
    num_heads: int = 32
    num_layers: int = 32
    hidden_scale: float = 4.125
    context: int = 3000
    max_period: float = 10_000
    kv_repeat: int = 1
    positional_embedding: str = "rope"
    depformer_dim: int = 1024
    depformer_dim_feedforward: int = 4224
    depformer_num_heads: int = 16
    depformer_num_layers: int = 6
    depformer_kv_repeat: int = 1
    delays: tuple[int, ...] = (0, 0, *[1] * 7, 0, *[1] * 7)
    ring: RingRule = "kyutai"

    def __post_init__(self) -> None:
        if len(self.delays) != self.num_streams:
            raise ValueError(
                f"delays has {len(self.delays)} entries, expected {self.num_streams} "
                f"(text and n_q = {self.n_q} codebooks)"
            )
        if min(self.delays) < 0 or self.delays[0] != 0:
            raise ValueError(f"delays are {self.delays}, expected 0 for text and none below 0")
        if not 1 <= self.dep_q <= self.n_q:
            raise ValueError(
                f"dep_q is {self.dep_q}, expected 1 to n_q = {self.n_q}: text-only models are not "
                "implemented"
            )
        if self.positional_embedding not in _ROPE:
            raise ValueError(
                f"positional_embedding is {self.positional_embedding!r}, expected one of "
                f"{sorted(_ROPE)}"
            )
        if self.ring not in ("kyutai", "personaplex"):
            raise ValueError(f"ring is {self.ring!r}, expected 'kyutai' or 'personaplex'")
        _ = self.temporal, self.depth  # their own invariants

    @property
    def num_streams(self) -> int:
        """Streams K: text and `n_q` codebooks."""
        return self.n_q + 1

    @property
    def max_delay(self) -> int:
        """Longest delay M: frame t is complete at call t + M."""
        return max(self.delays)

    @property
    def num_user_codebooks(self) -> int:
        """Codebooks U that a step takes from the user."""
        return self.n_q - self.dep_q

    @property
    def initial_tokens(self) -> tuple[int, ...]:
        """Token of each stream before its first frame."""
        return (self.text_card, *[self.card] * self.n_q)

    @property
    def temporal(self) -> TransformerConfig:
        """Shape of the temporal transformer."""
        return TransformerConfig(
            dim=self.dim,
            num_heads=self.num_heads,
            num_layers=self.num_layers,
            hidden=gated_width(self.dim, int(self.hidden_scale * self.dim)),
            context=self.context,
            max_period=self.max_period,
            rope="half" if self.positional_embedding == "rope_concat" else "interleaved",
            kv_repeat=self.kv_repeat,
            ring=self.ring,
        )

    @property
    def depth(self) -> TransformerConfig:
        """Shape of the depth transformer; it has no positions and sees all of its frame."""
        return TransformerConfig(
            dim=self.depformer_dim,
            num_heads=self.depformer_num_heads,
            num_layers=self.depformer_num_layers,
            hidden=gated_width(self.depformer_dim, self.depformer_dim_feedforward),
            context=self.dep_q,
            kv_repeat=self.depformer_kv_repeat,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, ring: RingRule = "kyutai") -> "MoshiConfig":
        """The model that a `config.json` describes; the loader's own keys are skipped.

        Raises:
          ValueError: a key is unknown, missing, or asks for what is not implemented.
        """
        fields = set(cls.__dataclass_fields__) - {"ring"}
        known = fields | {*_FIXED, *_OFF, *_INERT, *LOADER_KEYS}
        problems = [f"unknown switch {key!r}" for key in sorted(set(values) - known)]
        for key, only in {**_FIXED, **_OFF}.items():
            if key in values and values[key] != only:
                problems.append(f"{key!r} is {values[key]!r}, expected {only!r}")
        needed = ("dim", "text_card", "n_q", "dep_q", "card", "num_heads", "num_layers", "delays")
        problems += [f"{key!r} is missing" for key in needed if key not in values]
        if problems:
            raise ValueError(
                f"model config: {'; '.join(problems)}; use a checkpoint of the Moshi family, "
                "or a version of moshi-jax that implements the switch"
            )
        chosen = {key: values[key] for key in fields & set(values)}
        chosen["delays"] = tuple(values["delays"])
        # As in the reference, what the depth transformer does not say it inherits.
        chosen.setdefault("depformer_kv_repeat", chosen.get("kv_repeat", 1))
        return cls(**chosen, ring=ring)

    def to_dict(self) -> dict[str, Any]:
        """The model's part of a `config.json`."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "ring"}
        return {**fields, **_FIXED, "delays": list(self.delays)}


def gated_width(dim: int, dim_feedforward: int) -> int:
    """Hidden width of a gated block. Source: moshi/modules/gating.py."""
    return 21 * dim // 8 if dim_feedforward == 4 * dim else 2 * dim_feedforward // 3


def moshi_7b() -> MoshiConfig:
    """Moshi 7B as released (v0.1): 7.69 B parameters."""
    return MoshiConfig()


def personaplex_7b() -> MoshiConfig:
    """PersonaPlex 7B as released: it also generates the user's codebooks. 8.37 B parameters."""
    return MoshiConfig(dep_q=16, ring="personaplex")


def nano() -> MoshiConfig:
    """The same architecture at a size for tests and laptops."""
    return MoshiConfig(
        dim=64,
        text_card=255,
        card=64,
        num_heads=4,
        num_layers=2,
        context=40,
        depformer_dim=32,
        depformer_dim_feedforward=132,
        depformer_num_heads=2,
        depformer_num_layers=2,
    )
