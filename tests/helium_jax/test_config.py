import json
from dataclasses import replace
from pathlib import Path

import pytest

from helium_jax import LutConfig, MoshiConfig, as_personaplex, moshi_7b, nano
from helium_jax.config import LOADER_KEYS, gated_width
from layers_jax import LoraConfig

KEYS_FOLDER = Path(__file__).resolve().parent.parent / "golden" / "keys"


FAMILY = (
    "lm_kyutai",
    "lm_kyutai_delay2",
    "lm_rope_concat",
    "lm_schedule",
    "lm_stt_like",
    "lm_hibiki_like",
    "personaplex_lm",
)


@pytest.mark.parametrize("name", FAMILY)
def test_a_published_config_comes_back_with_all_it_said(golden, name):
    values = golden(name).config
    config = MoshiConfig.from_dict(values)
    written = json.loads(json.dumps(config.to_dict()))
    assert MoshiConfig.from_dict(written) == config
    inert = {"depformer_context", "depformer_max_period", "depformer_causal"}
    assert {
        key: value for key, value in values.items() if written.get(key) != value
    }.keys() <= inert


def test_the_loaders_own_keys_are_skipped(tiny_checkpoint):
    values = json.loads((tiny_checkpoint / "config.json").read_text())
    assert values.keys() & set(LOADER_KEYS)
    model = {key: value for key, value in values.items() if key not in LOADER_KEYS}
    assert MoshiConfig.from_dict(values) == MoshiConfig.from_dict(model)


def test_defaults_are_those_of_the_released_model():
    config = MoshiConfig.from_dict(
        json.loads((KEYS_FOLDER / "moshi_7b.json").read_text())["config"]
    )
    assert config == moshi_7b()
    assert (config.num_streams, config.max_delay, config.num_user_codebooks) == (17, 1, 8)
    assert config.num_agent_codebooks == 8 and config.num_text_logits == 32_000
    assert config.temporal.hidden == 11264 and config.depth.hidden == 2816
    assert config.temporal.head_dim == 128 and config.depth.context == 8
    assert config.initial_tokens == (32_000, *[2048] * 16)


def test_hidden_widths_follow_the_references_two_rules():
    """Two thirds, and 21/8 of the width where four times the width was asked for."""
    assert gated_width(16, 66) == 44
    assert gated_width(16, 64) == 42
    assert gated_width(4096, 4096 * 4) == 10752
    assert replace(nano(), hidden_scale=4).temporal.hidden == 21 * 64 // 8


def test_the_depth_transformer_inherits_grouped_queries_unless_told(golden):
    values = golden("lm_rope_concat").config
    told = MoshiConfig.from_dict(values)
    assert (told.kv_repeat, told.depformer_kv_repeat) == (2, 1)
    values = {key: value for key, value in values.items() if key != "depformer_kv_repeat"}
    assert MoshiConfig.from_dict(values).depformer_kv_repeat == 2


def test_positions_are_rotated_as_the_config_says(golden):
    values = golden("lm_rope_concat").config
    assert MoshiConfig.from_dict(values).temporal.rope == "half"
    interleaved = MoshiConfig.from_dict({**values, "positional_embedding": "rope"})
    assert interleaved.temporal.rope == "interleaved"


def test_the_ring_rule_is_the_callers_and_not_in_the_file():
    config = MoshiConfig.from_dict(nano().to_dict(), ring="personaplex")
    assert config.ring == config.temporal.ring == "personaplex"
    assert "ring" not in config.to_dict()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rotary_flavour": 3}, r"unknown switch 'rotary_flavour'"),
        ({"ring": "kyutai"}, r"unknown switch 'ring'"),
        ({"norm": "layer_norm"}, r"'norm' is 'layer_norm', expected 'rms_norm_f32'"),
        ({"gating": "gelu"}, r"'gating' is 'gelu', expected 'silu'"),
        ({"depformer_pos_emb": "sin"}, r"'depformer_pos_emb' is 'sin', expected 'none'"),
        ({"cross_attention": True}, r"'cross_attention' is True, expected False"),
        (
            {"fuser": {"sum": ["x"]}},
            r"'fuser' sums \['x'\], expected exactly the conditioners \[\]",
        ),
        ({"fuser": {"cross": ["x"]}}, r"'fuser' has 'cross' \['x'\], expected only 'sum'"),
        ({"conditioners": {"x": {"type": "tensor"}}, "fuser": {"sum": ["x"]}}, r"conditioner 'x'"),
        ({"demux_second_stream": True}, r"'demux_second_stream' is True, expected False"),
        ({"depformer_norm": "layer_norm"}, r"depformer_norm is 'layer_norm', expected one of"),
        ({"depformer_dim_feedforward": [9, 9]}, r"'depformer_dim_feedforward' is a list"),
        (
            {"depformer_weights_per_step_schedule": [0, 2]},
            r"schedule is \[0, 2\], expected the num",
        ),
        ({"lora": True, "lora_rank": 0}, r"LoRA rank is 0, expected at least 1"),
        ({"lora": True, "lora_scaling": "2"}, r"lora_scaling '2', expected two numbers"),
        ({"lora_name": "lora.safetensors"}, r"'lora_name' is 'lora.safetensors', expected None"),
        ({"delays": [0, 0, 1]}, r"delays has 3 entries, expected 17 \(text and n_q = 16"),
        ({"delays": [1] * 17}, r"expected 0 for text and none below 0"),
        ({"delays": [0] * 16 + [-1]}, r"expected 0 for text and none below 0"),
        ({"dep_q": 17}, r"dep_q is 17, expected 0 to n_q = 16"),
        ({"positional_embedding": "sin"}, r"'sin', expected one of \['rope', 'rope_concat'\]"),
        ({"num_heads": 3}, r"dim is 64, expected a multiple of 2 \* 3 heads"),
        ({"depformer_num_heads": 3}, r"dim is 32, expected a multiple of 2 \* 3 heads"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        MoshiConfig.from_dict({**nano().to_dict(), **change})


def test_all_problems_of_a_file_are_told_at_once():
    with pytest.raises(
        ValueError, match=r"unknown switch 'x'; 'causal' is False, expected True; 'dim' is missing"
    ):
        values = {key: value for key, value in nano().to_dict().items() if key != "dim"}
        MoshiConfig.from_dict({**values, "causal": False, "x": 1})


def test_switches_that_are_off_are_fine():
    off = {"cross_attention": False, "conditioners": None, "lora": False, "depformer_context": 8}
    assert MoshiConfig.from_dict({**nano().to_dict(), **off}) == nano()


def test_adapters_are_read_and_written_under_the_keys_of_moshi_finetune():
    asked = {"lora": True, "lora_rank": 4, "lora_scaling": 0.5}
    config = MoshiConfig.from_dict({**nano().to_dict(), **asked})
    assert config == replace(nano(), lora=LoraConfig(rank=4, scaling=0.5))
    assert config.temporal.lora == config.depth.lora == config.lora
    assert asked.items() <= config.to_dict().items()
    released = MoshiConfig.from_dict({**nano().to_dict(), "lora": True})
    assert released.lora == LoraConfig(rank=128, scaling=2.0)


def test_rank_and_scaling_without_lora_are_no_adapters():
    unused = {"lora": False, "lora_rank": 128, "lora_scaling": 2.0}
    assert MoshiConfig.from_dict({**nano().to_dict(), **unused}) == nano()
    assert not {"lora", "lora_rank"} & set(nano().to_dict())


def test_a_strange_ring_rule_is_refused():
    """While testing by the annotation, else by the config itself."""
    with pytest.raises(Exception, match=r"ring"):
        MoshiConfig(ring="rust")  # pyrefly: ignore[bad-argument-type]


def test_what_the_depth_transformer_has_once_a_weight_set_follows_the_schedule(golden):
    config = MoshiConfig.from_dict(golden("lm_schedule").config)
    assert config.depth_weight_sets == (0, 1, 2, 2, 3, 3, 3, 3)
    assert config.num_depth_weight_sets == 4 and nano().num_depth_weight_sets == 8
    assert config.depth.context == 8


def test_the_depth_transformer_inherits_its_width_rule():
    """Without a width of its own it takes `hidden_scale` times its dimension."""
    config = MoshiConfig.from_dict({**nano().to_dict(), "depformer_dim_feedforward": None})
    assert config.depth.hidden == nano().depth.hidden == gated_width(32, int(4.125 * 32))


def test_a_model_that_only_listens_and_writes(golden):
    config = MoshiConfig.from_dict(golden("lm_stt_like").config)
    assert (config.dep_q, config.num_user_codebooks, config.num_agent_codebooks) == (0, 8, 0)
    assert (config.extra_heads_num_heads, config.max_delay) == (4, 0)


def test_conditions_are_read_in_the_order_they_are_summed(golden):
    values = golden("lm_hibiki_like").config
    choices = ("very_bad", "bad", "neutral", "good", "very_good")
    lut = LutConfig(name="description", n_bins=31, dim=16, possible_values=choices)
    assert MoshiConfig.from_dict(values).conditioners == (lut,)
    both = {"b": values["conditioners"]["description"], **values["conditioners"]}
    two = {**values, "conditioners": both, "fuser": {"sum": ["description", "b"]}}
    assert [c.name for c in MoshiConfig.from_dict(two).conditioners] == ["description", "b"]


def test_hibiki_reads_the_end_of_a_sentence_as_padding(golden):
    values = golden("lm_hibiki_like").config
    assert MoshiConfig.from_dict({**values, "model_type": "hibiki"}).reads_eos_as_pad
    assert not MoshiConfig.from_dict(values).reads_eos_as_pad


def test_who_runs_the_model_decides_which_codebooks_are_the_users(golden):
    config = MoshiConfig.from_dict(golden("personaplex_lm").config)
    assert (config.num_user_codebooks, config.num_agent_codebooks) == (0, 16)
    there = as_personaplex(config)
    assert (there.num_user_codebooks, there.num_agent_codebooks) == (8, 8)
    assert there.ring == "personaplex" and not there.last_codebook_sees_text
    assert there.to_dict() == config.to_dict()
    with pytest.raises(ValueError, match=r"dep_q 8, expected dep_q = n_q = 16: that step is for"):
        as_personaplex(nano())
