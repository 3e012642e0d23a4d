"""Shapes of the language model, read from and written to the keys of Kyutai's `config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from helium_jax.conditions import LutConfig, read_conditioners, write_conditioners
from layers_jax import LoraConfig, TransformerConfig
from layers_jax.attention import RingRule
from layers_jax.lora import LORA_KEYS, read_lora, write_lora

Timing = Literal["kyutai", "personaplex"]

_ROPE = {"rope": "interleaved", "rope_concat": "half"}
# Switches with one implemented value: that of every released model of the family.
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
    "stt_config",
    "tts_config",
)
# Switches that the reference defines and this version lacks; harmless while they are off.
_OFF = {
    "demux_second_stream": False,
    "demux_second_text_stream": False,
    "cross_attention": False,
    "norm_emb": False,
    "bias_proj": False,
    "quantize": False,
    "lora_name": None,
}
# Of the program that runs the model, not of the checkpoint.
_RUNTIME = ("ring", "timing", "last_codebook_sees_text", "reads_eos_as_pad", "text_initial")


@dataclass(frozen=True, kw_only=True)
class MoshiConfig:
    """A model; fields are named as in `config.json`, defaults are those of Moshi 7B.

    Streams are text, then `n_q` audio codebooks: `dep_q` that the model generates, then those that
    only the user has. Without codebooks (`n_q` 0) it is a text model, without a depth transformer
    (`dep_q` 0) it listens and writes.

    Attributes:
      dim: temporal width D.
      text_card, card: text and audio vocabulary; each table has one more row, the initial token.
      text_card_out: text tokens that can be generated, `text_card` if None.
      existing_text_padding_id, existing_text_end_padding_id: the PAD and EPAD tokens.
      n_q, dep_q: audio codebooks fed, and generated.
      num_heads, num_layers, hidden_scale, context, max_period, kv_repeat, positional_embedding:
        temporal transformer; `context` in frames.
      depformer_*: depth transformer.
      depformer_dim_feedforward: `hidden_scale` times its width if None.
      depformer_weights_per_step_schedule: weight set of each codebook; one set each if None.
      depformer_low_rank_embeddings: rank of its embedding tables, full if None.
      depformer_norm: "rms_norm_f32" puts a norm before each of its heads.
      extra_heads_num_heads, extra_heads_dim: further softmax heads on the temporal output.
      conditioners: conditions that are added to every input.
      delays: frames by which each stream is shifted, `n_q + 1` of them.
      lora: adapters beside every matrix, as moshi-finetune trains them; None for the plain model.
      ring: whose ring rule holds once the context is full.
      timing: whose step it is, see `helium_jax.step`.
      last_codebook_sees_text: False repeats NVIDIA's depth cache, in which the last codebook's step
        has lost sight of the text token (position 0 of the frame); a matter of the step, not of the
        teacher-forced forward.
      reads_eos_as_pad: text token 2 is embedded as token 3, as the reference does for Hibiki.
      text_initial: text token before the first frame, `text_card` if None.
        The last five are of the program and not of the checkpoint: no keys of `config.json`.
    """

    dim: int = 4096
    text_card: int = 32_000
    text_card_out: int | None = None
    existing_text_padding_id: int = 3
    existing_text_end_padding_id: int = 0
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
    depformer_dim_feedforward: int | None = 4224
    depformer_num_heads: int = 16
    depformer_num_layers: int = 6
    depformer_kv_repeat: int = 1
    depformer_weights_per_step_schedule: tuple[int, ...] | None = None
    depformer_low_rank_embeddings: int | None = None
    depformer_norm: str | None = None
    extra_heads_num_heads: int = 0
    extra_heads_dim: int = 6
    conditioners: tuple[LutConfig, ...] = ()
    delays: tuple[int, ...] = (0, 0, *[1] * 7, 0, *[1] * 7)
    lora: LoraConfig | None = None
    ring: RingRule = "kyutai"
    timing: Timing = "kyutai"
    last_codebook_sees_text: bool = True
    reads_eos_as_pad: bool = False
    text_initial: int | None = None

    def __post_init__(self) -> None:
        if len(self.delays) != self.num_streams:
            raise ValueError(
                f"delays has {len(self.delays)} entries, expected {self.num_streams} "
                f"(text and n_q = {self.n_q} codebooks)"
            )
        if min(self.delays) < 0 or self.delays[0] != 0:
            raise ValueError(f"delays are {self.delays}, expected 0 for text and none below 0")
        if not 0 <= self.dep_q <= self.n_q:
            raise ValueError(f"dep_q is {self.dep_q}, expected 0 to n_q = {self.n_q}")
        for name, choices in (
            ("positional_embedding", tuple(_ROPE)),
            ("ring", ("kyutai", "personaplex")),
            ("timing", ("kyutai", "personaplex")),
            ("depformer_norm", (None, "rms_norm_f32")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, expected one of {list(choices)}"
                )
        if self.timing == "personaplex" and self.dep_q != self.n_q:
            raise ValueError(
                f"timing is 'personaplex' with dep_q {self.dep_q}, expected dep_q = n_q = "
                f"{self.n_q}: that step is for models that generate the user's codebooks too"
            )
        sets = self.depth_weight_sets
        if len(sets) != self.dep_q or sorted(set(sets)) != list(range(len(set(sets)))):
            raise ValueError(
                f"depformer_weights_per_step_schedule is {list(sets)}, expected the numbers of "
                f"weight sets from 0 without a gap, one for each of dep_q = {self.dep_q} codebooks"
            )
        _ = self.temporal  # its own invariants
        if self.dep_q:
            _ = self.depth

    @property
    def num_streams(self) -> int:
        """Streams K: text and `n_q` codebooks."""
        return self.n_q + 1

    @property
    def max_delay(self) -> int:
        """Longest delay M: frame t is complete M positions after its first token."""
        return max(self.delays)

    @property
    def num_user_codebooks(self) -> int:
        """Codebooks U that a step takes from the user.

        A PersonaPlex step takes half of all: the model could generate them, but hears them instead.
        """
        return self.n_q // 2 if self.timing == "personaplex" else self.n_q - self.dep_q

    @property
    def num_agent_codebooks(self) -> int:
        """Codebooks Q that are the agent's voice: those that are not the user's."""
        return self.n_q - self.num_user_codebooks

    @property
    def initial_tokens(self) -> tuple[int, ...]:
        """Token of each stream before its first frame."""
        text = self.text_card if self.text_initial is None else self.text_initial
        return (text, *[self.card] * self.n_q)

    @property
    def num_text_logits(self) -> int:
        """Text tokens that can be generated."""
        return self.text_card if self.text_card_out is None else self.text_card_out

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
            lora=self.lora,
        )

    @property
    def depth(self) -> TransformerConfig:
        """Shape of the depth transformer; it has no positions and sees all of its frame."""
        wide = self.depformer_dim_feedforward
        if wide is None:
            wide = int(self.hidden_scale * self.depformer_dim)
        return TransformerConfig(
            dim=self.depformer_dim,
            num_heads=self.depformer_num_heads,
            num_layers=self.depformer_num_layers,
            hidden=gated_width(self.depformer_dim, wide),
            context=self.dep_q,
            kv_repeat=self.depformer_kv_repeat,
            lora=self.lora,
        )

    @property
    def depth_weight_sets(self) -> tuple[int, ...]:
        """The weight set of each generated codebook."""
        schedule = self.depformer_weights_per_step_schedule
        return tuple(range(self.dep_q)) if schedule is None else schedule

    @property
    def num_depth_weight_sets(self) -> int:
        """How many weight sets the depth transformer has."""
        return len(set(self.depth_weight_sets))

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        *,
        ring: RingRule = "kyutai",
        timing: Timing = "kyutai",
        last_codebook_sees_text: bool = True,
    ) -> "MoshiConfig":
        """The model that a `config.json` describes; the loader's own keys are skipped.

        Raises:
          ValueError: a key is unknown, missing, or asks for what is not implemented.
        """
        fields = set(cls.__dataclass_fields__) - {*_RUNTIME, "conditioners", "lora"}
        loaders = {*_FIXED, *_OFF, *_INERT, *LOADER_KEYS}
        known = fields | loaders | {"conditioners", "fuser", *LORA_KEYS}
        problems = [f"unknown switch {key!r}" for key in sorted(set(values) - known)]
        for key, only in {**_FIXED, **_OFF}.items():
            if key in values and values[key] != only:
                problems.append(f"{key!r} is {values[key]!r}, expected {only!r}")
        if isinstance(values.get("depformer_dim_feedforward"), list):
            problems.append("'depformer_dim_feedforward' is a list, expected one number")
        needed = ("dim", "text_card", "n_q", "dep_q", "card", "num_heads", "num_layers", "delays")
        problems += [f"{key!r} is missing" for key in needed if key not in values]
        conditioners, strange = read_conditioners(values.get("conditioners"), values.get("fuser"))
        problems += strange
        if problems:
            raise ValueError(
                f"model config: {'; '.join(problems)}; use a checkpoint of the Moshi family, "
                "or a version of moshi-jax that implements the switch"
            )
        chosen = {key: values[key] for key in fields & set(values)}
        for key in ("delays", "depformer_weights_per_step_schedule"):
            if chosen.get(key) is not None:
                chosen[key] = tuple(chosen[key])
        # As in the reference, what the depth transformer does not say it inherits.
        chosen.setdefault("depformer_kv_repeat", chosen.get("kv_repeat", 1))
        return cls(
            **chosen,
            conditioners=conditioners,
            lora=read_lora(values),
            ring=ring,
            timing=timing,
            last_codebook_sees_text=last_codebook_sees_text,
            reads_eos_as_pad=values.get("model_type") == "hibiki",
        )

    def to_dict(self) -> dict[str, Any]:
        """The model's part of a `config.json`."""
        fields = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in (*_RUNTIME, "conditioners", "lora")
        }
        schedule = self.depformer_weights_per_step_schedule
        return {
            **fields,
            **_FIXED,
            **write_conditioners(self.conditioners),
            **write_lora(self.lora),
            "delays": list(self.delays),
            "depformer_weights_per_step_schedule": None if schedule is None else list(schedule),
        }


def gated_width(dim: int, dim_feedforward: int) -> int:
    """Hidden width of a gated block. Source: moshi/modules/gating.py."""
    return 21 * dim // 8 if dim_feedforward == 4 * dim else 2 * dim_feedforward // 3
