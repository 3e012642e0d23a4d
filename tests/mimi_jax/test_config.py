import copy
import json
from dataclasses import replace

import pytest

from mimi_jax import MimiConfig, QuantizerConfig, mimi_24khz, nano


@pytest.fixture(scope="module")
def published(golden):
    return golden("mimi_kyutai").config


def test_a_published_config_comes_back_as_it_was(published, tiny_checkpoint):
    for values in (published, json.loads((tiny_checkpoint / "mimi_config.json").read_text())):
        config = MimiConfig.from_dict(values)
        assert config.to_dict() == values
        assert MimiConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_every_value_of_the_file_has_an_effect_on_the_config(published):
    config = MimiConfig.from_dict(published)
    assert config.seanet.ratios == (8, 6, 5, 4)
    assert (config.quantizer.n_q, config.quantizer.bins, config.quantizer.dimension) == (12, 64, 32)
    block = config.transformer
    assert (block.dim, block.num_heads, block.num_layers, block.hidden) == (64, 4, 2, 128)
    assert (block.context, block.layer_scale, block.norm, block.mlp) == (20, 0.01, "layer", "gelu")


def test_codebooks_and_ring_rule_are_chosen_by_the_caller(published):
    config = MimiConfig.from_dict(published, num_codebooks=3, ring="personaplex")
    assert (config.num_codebooks, config.transformer.ring) == (3, "personaplex")
    assert config.to_dict() == published


def test_the_released_codec_has_80_ms_frames_of_two_columns():
    config = mimi_24khz()
    assert (config.frame_samples, config.seanet.hop_samples) == (1920, 960)
    assert config.resample_stride == 2
    assert config.transformer.context == 250 and config.num_codebooks == 8
    assert nano().frame_samples == 1920


def change(values, path, value):
    values = copy.deepcopy(values)
    section = values
    for key in path[:-1]:
        section = section[key]
    if value is None:
        del section[path[-1]]
    else:
        section[path[-1]] = value
    return values


@pytest.mark.parametrize(
    "path, value, message",
    [
        (["seanet", "noise"], 1, r"seanet has unknown switches \['noise'\]"),
        (["lfe"], True, r"mimi config has unknown switches \['lfe'\]"),
        (["quantizer", "decay"], 0.9, r"quantizer has unknown switches \['decay'\]"),
        (["seanet", "pad_mode"], "reflect", r"seanet 'pad_mode' is 'reflect', expected 'constant'"),
        (["seanet", "causal"], False, r"seanet 'causal' is False, expected True"),
        (["transformer", "gating"], "silu", r"transformer 'gating' is 'silu', expected 'none'"),
        (["transformer", "positional_embedding"], "sin", r"'sin', expected 'rope'"),
        (["transformer", "output_dimensions"], [64, 64], r"\[64, 64\], expected \[64\]"),
        (["quantizer", "input_dimension"], 32, r"'input_dimension' is 32, expected 64"),
        (["channels"], 2, r"mimi config 'channels' is 2, expected 1"),
        (["quantizer", "bins"], None, r"quantizer has no 'bins'"),
        (["transformer"], None, r"mimi config has no 'transformer'"),
        (["transformer"], 3, r"'transformer' is 3, expected an object"),
        (["transformer", "d_model"], 32, r"d_model is 32, expected the seanet dimension 64"),
        (["frame_rate"], 12.0, r"frame_rate is 12\.0, expected sample_rate 24000 over a multiple"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(published, path, value, message):
    with pytest.raises(ValueError, match=message):
        MimiConfig.from_dict(change(published, path, value))


@pytest.mark.parametrize("count", [0, 13])
def test_codebooks_that_the_checkpoint_has_not_are_refused(count):
    with pytest.raises(ValueError, match=rf"num_codebooks is {count}, expected 1 to n_q = 12"):
        replace(nano(), num_codebooks=count)
    assert replace(nano(), quantizer=QuantizerConfig(n_q=8)).num_codebooks == 8
