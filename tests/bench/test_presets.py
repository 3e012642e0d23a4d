import pytest

from bench.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_codec_and_language_model_fit_each_other(name):
    found = preset(name)
    assert found.mimi.num_codebooks == found.lm.num_user_codebooks == 8
    assert found.mimi.quantizer.bins == found.lm.card


def test_the_eighth_has_an_eighth_of_the_widths_and_every_layer():
    whole, part = preset("moshi-7b").lm, preset("moshi-eighth").lm
    assert (part.num_layers, part.depformer_num_layers) == (32, 6)
    for name in ("dim", "depformer_dim", "depformer_dim_feedforward", "num_heads", "text_card"):
        assert getattr(whole, name) == 8 * getattr(part, name), name
    assert part.temporal.head_dim == whole.temporal.head_dim
    assert 8 * part.temporal.hidden == whole.temporal.hidden


def test_an_unknown_name_says_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown preset 'x', expected one of moshi-7b, person"):
        preset("x")
