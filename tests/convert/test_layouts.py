import re
from dataclasses import replace

import jax
import ml_dtypes
import numpy as np
import pytest

from convert import params_from_tensors
from convert.layouts import (
    FilteredTensors,
    Piece,
    ViewedTensors,
    as_released,
    dequantised,
    interleaved,
    layout_of,
    transformers_helium,
    transformers_mimi,
    transformers_moshi,
)
from convert.rules import flatten, plan
from convert.safetensors_io import MemoryTensors
from convert.sources import abstract_params, memory_source, rules_of
from convert.tree import read_tree
from helium_jax import MoshiConfig


def released(config, params):
    source = memory_source(config, params, abstract_params(config), subject="test")
    return {key: source.read(key) for key in source.tensors}


def halves(weight, heads):
    """What transformers' own converter did: pairs side by side to two halves of each head."""
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])
    return pairs.transpose(0, 2, 1, 3).reshape(weight.shape)


def foreign(tensors, layout):
    """A file of another layout with the values of a release: the inverse of `layout`."""
    stacks, made = {}, {}
    for key, pieces in layout.items():
        rows, start = tensors[key], 0
        share = [len(rows)] if len(pieces) == 1 else shares(rows, pieces)
        for piece, count in zip(pieces, share, strict=True):
            value = rows[start : start + count]
            start += count
            value = value.reshape(-1) if piece.flat else value
            value = halves(value, piece.heads) if piece.heads else value
            if piece.entry is None:
                made[piece.name] = value
            else:
                stacks.setdefault(piece.name, {})[piece.entry] = value
    return made | {name: np.stack([s[k] for k in sorted(s)]) for name, s in stacks.items()}


def shares(rows, pieces):
    """Rows of each piece: q has more than k and v when heads share keys."""
    kinds = [re.search(r"\.([a-z]+)_proj", piece.name)[1] for piece in pieces]
    if set(kinds) == set("qkv") and "_transformer." not in pieces[0].name:  # the codec's are equal
        steps = len(pieces) // 3
        width = SIZES["depth" if "depth" in pieces[0].name else "temporal"]
        total = len(rows) // steps
        return [width if kind == "q" else (total - width) // 2 for kind in kinds]
    return [len(rows) // len(pieces)] * len(pieces)


SIZES = {"temporal": 24, "depth": 16}  # of small_lm: queries have as many rows as the model is wide


@pytest.fixture(scope="module")
def small_moshi(small_lm):
    return replace(small_lm, kv_repeat=3, n_q=6, delays=(0, 0, 1, 1, 0, 1, 1))


def check(config, params, file, layout):
    """All tensors of the layout are used, and the model is the same in our form."""
    assert layout_of(file) == layout
    seen = as_released(MemoryTensors(file), config)
    expected = released(config, params)
    assert set(seen.tensors) == set(expected)
    for key, value in expected.items():
        assert seen.tensors[key].shape == value.shape
        np.testing.assert_array_equal(seen.read(key), value, err_msg=key)
        if value.shape[0] % 3 == 0:
            np.testing.assert_array_equal(seen.read(key, (1, 3)), np.split(value, 3)[1])


def test_moshi_of_transformers(small_moshi, random_params):
    params = random_params(small_moshi, dtypes=[np.dtype(np.float32)])
    file = foreign(released(small_moshi, params), transformers_moshi(small_moshi))
    assert file["depth_decoder.layers.1.mlp.fc1.weight"].ndim == 3
    check(small_moshi, params, file, "moshi")


def test_helium_of_transformers(random_params):
    config = MoshiConfig(
        dim=24, text_card=12, text_card_out=13, n_q=0, dep_q=0, num_heads=6, num_layers=2,
        hidden_scale=3.5, context=9, kv_repeat=3, delays=(0,),
    )  # fmt: skip
    params = random_params(config, dtypes=[np.dtype(ml_dtypes.bfloat16)])
    layout = transformers_helium(config)
    tensors = released(config, params)
    gates = {k: v for k, v in tensors.items() if k.endswith("linear_in.weight")}
    assert gates
    file = foreign(tensors, layout)
    check(config, params, file, "helium")


@pytest.mark.parametrize("nested", [False, True])
def test_mimi_of_transformers(nested, small_mimi, random_params):
    params = random_params(small_mimi, dtypes=[np.dtype(np.float32)])
    names = {"encoder.encoder_seanet.x": np.zeros(1)} if nested else {}
    layout = transformers_mimi(MemoryTensors(names), small_mimi)
    file = foreign(released(small_mimi, params), layout)
    assert ("encoder.encoder_seanet.layers.0.conv.weight" in file) == nested
    assert ("encoder.layers.0.conv.weight" in file) != nested
    check(small_mimi, params, file, "mimi")


def test_a_codec_within_a_model_is_seen_by_itself(small_moshi, small_mimi, random_params):
    lm = random_params(small_moshi, dtypes=[np.dtype(np.float32)])
    codec = random_params(small_mimi, dtypes=[np.dtype(np.float32)])
    layout = transformers_mimi(MemoryTensors({}), small_mimi)
    inner = foreign(released(small_mimi, codec), layout)
    file = foreign(released(small_moshi, lm), transformers_moshi(small_moshi))
    file |= {f"audio_encoder.{key}": value for key, value in inner.items()}
    for config, params in ((small_moshi, lm), (small_mimi, codec)):
        seen = as_released(MemoryTensors(file), config)
        assert set(seen.tensors) == set(released(config, params))


def test_what_nothing_claims_stays_to_be_refused():
    file = MemoryTensors({"a": np.ones((2, 2)), "b": np.ones((2, 2)), "stranger": np.ones(3)})
    seen = ViewedTensors(file, {"ab": [Piece("a"), Piece("b")], "cd": [Piece("b"), Piece("gone")]})
    assert set(seen.tensors) == {"ab", "stranger"}
    assert seen.tensors["ab"].shape == (4, 2)
    np.testing.assert_array_equal(seen.read("stranger"), np.ones(3))


def test_pieces_that_do_not_fit_have_no_right_shape():
    file = MemoryTensors({"a": np.ones((2, 2)), "b": np.ones((2, 3)), "c": np.ones((2, 2), "f4")})
    seen = ViewedTensors(file, {"ab": [Piece("a"), Piece("b")], "ac": [Piece("a"), Piece("c")]})
    assert seen.tensors["ab"].shape == (0,)
    assert seen.tensors["ac"].format == "F32/F64"


def test_a_prefix_divides_a_file():
    file = MemoryTensors({"x.a": np.arange(4.0), "b": np.ones(2)})
    inside, outside = (FilteredTensors(file, "x.", inside=flag) for flag in (True, False))
    assert (set(inside.tensors), set(outside.tensors)) == ({"a"}, {"b"})
    np.testing.assert_array_equal(inside.read("a", (1, 2)), [2, 3])


def test_interleaving_undoes_the_halves():
    weight = np.arange(2 * 6 * 5).reshape(12, 5)
    np.testing.assert_array_equal(interleaved(halves(weight, 2), 2), weight)
    assert [row[0] // 5 for row in interleaved(weight, 2)] == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert [row[0] // 5 for row in interleaved(weight, 1)] == [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]


def test_int8_rows_become_their_values():
    """The largest value of a row is its scale, to the last bit of float32's 1/127."""
    values = np.array([[127, -127, 0, 64], [1, 2, 3, -128]], np.int8)
    scales = np.array([2.5, 0.5], np.float32)
    got = dequantised(values, scales)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, values * scales[:, None] / 127.0, rtol=2e-7)
    step = np.float32(7.874015718698502e-3)
    np.testing.assert_array_equal(got[1], np.float32([0.5, 1, 1.5, -64]) * step)


def quantise(weight):
    scales = np.abs(weight.astype(np.float32)).max(axis=1)
    return np.rint(weight.astype(np.float32) / scales[:, None] * 127).astype(np.int8), scales


@pytest.mark.parametrize("split", [False, True])
def test_an_int8_model_is_read_by_its_values(split, small_lm, random_params):
    params = random_params(small_lm, dtypes=[np.dtype(np.float32)])
    tensors, file, expected = released(small_lm, params), {}, {}
    for key, value in tensors.items():
        if "emb" in key or value.ndim != 2:
            file[key] = expected[key] = value
            continue
        name = key.replace("in_proj_weight", "in_proj.weight") if split else key
        quants, scales = quantise(value)
        file[name], file[f"{name}_scb"] = quants, scales
        expected[key] = dequantised(quants, scales)
    assert layout_of(file) == "q8"
    seen, shapes = as_released(MemoryTensors(file), small_lm), abstract_params(small_lm)
    leaves = {path: leaf.shape for path, leaf in flatten(shapes).items()}
    made = plan(rules_of(small_lm), leaves, seen.tensors)
    got = read_tree(made, seen, shapes, subject="q8")
    jax.tree.map(np.testing.assert_array_equal, got, params_from_tensors(small_lm, expected))
