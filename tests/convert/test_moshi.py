import re
from dataclasses import replace

import jax
import numpy as np
import pytest

from convert import params_from_tensors, to_jax, to_torch
from convert.checkpoint import write_config
from convert.moshi import moshi_rules
from convert.rules import flatten, plan
from convert.safetensors_io import FLOATS, TensorInfo, write_safetensors
from convert.sources import abstract_params, memory_source, release_shapes
from helium_jax import MoshiConfig, moshi_7b

NAMES = ["moshi_7b", "personaplex_7b", "hibiki_2b", "stt_1b", "stt_2.6b"]


def shapes_of(tree):
    return {path: leaf.shape for path, leaf in flatten(tree).items()}


def full_shapes(config):
    """Shapes of a deep model out of a one-layer one: layers are alike, and building them slow."""
    tree = abstract_params(replace(config, num_layers=1, depformer_num_layers=1))
    tree["temporal"]["layers"] *= config.num_layers
    if config.dep_q:
        tree["depth"]["layers"] *= config.depformer_num_layers
    return shapes_of(tree)


@pytest.mark.parametrize("name", NAMES)
def test_the_table_gives_the_names_and_shapes_of_the_real_files(name, published_keys):
    published = published_keys(name)
    config = MoshiConfig.from_dict(published["config"])
    leaves = full_shapes(config)
    made = plan(moshi_rules(config), leaves)
    assert set(made.leaves) == set(leaves) and not made.derived
    for layout in ("released", "split"):
        if layout in published:
            tensors = {k: TensorInfo(tuple(s), f) for k, (f, s) in published[layout].items()}
            read = plan(moshi_rules(config), leaves, tensors)
            assert read.tensor_shapes == {key: info.shape for key, info in tensors.items()}
    released = {key: tuple(shape) for key, (_, shape) in published["released"].items()}
    assert made.tensor_shapes == released


@pytest.mark.slow
def test_the_short_cut_above_takes_no_liberty():
    assert full_shapes(moshi_7b()) == shapes_of(abstract_params(moshi_7b()))


def test_every_leaf_comes_from_exactly_one_rule(small_lm):
    patterns = [
        re.compile(re.sub(r"\\\{.\\\}", r"\\d+", re.escape(rule.path)))
        for rule in moshi_rules(small_lm)
    ]
    leaves = shapes_of(abstract_params(small_lm))
    matches = {path: sum(bool(p.fullmatch(path)) for p in patterns) for path in leaves}
    assert set(matches.values()) == {1}, matches


@pytest.mark.parametrize("seed", range(3))
def test_there_and_back_is_the_identity_on_random_trees(seed, small_lm, random_params):
    params = random_params(small_lm, seed)
    source = memory_source(small_lm, params, abstract_params(small_lm), subject="test")
    tensors = {key: source.read(key) for key in source.tensors}
    wide = params_from_tensors(small_lm, tensors)
    expected = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    jax.tree.map(np.testing.assert_array_equal, wide, expected)
    again = memory_source(small_lm, wide, abstract_params(small_lm), subject="test")
    back = again.recast(source.formats)
    assert {key: back.read(key).tobytes() for key in tensors} == {
        key: tensor.tobytes() for key, tensor in tensors.items()
    }


def test_depth_steps_are_in_numeric_order(small_lm, random_params):
    """More than ten codebooks: a table in name order would put codebook 10 after codebook 1."""
    config = replace(small_lm, n_q=12, dep_q=12, delays=(0,) * 13)
    params = random_params(config)
    source = memory_source(config, params, abstract_params(config), subject="test")
    table = params["audio_embedding"]["table"]
    np.testing.assert_array_equal(source.read("emb.10.weight"), table[80:88])
    fused = source.read("depformer.layers.1.self_attn.out_proj.weight")
    np.testing.assert_array_equal(
        fused[160:176].T,
        params["depth"]["layers"][1]["attention"][10]["out"]["kernel"].astype(fused.dtype),
    )


def narrow(config):
    """The same model, layer for layer and step for step, a few values wide."""
    return replace(
        config,
        dim=2 * config.num_heads,
        text_card=11,
        card=7,
        depformer_dim=2 * config.depformer_num_heads,
        depformer_dim_feedforward=30,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_real_key_lists_go_there_and_back_byte_for_byte(name, published_keys, tmp_path):
    published = published_keys(name)
    config = narrow(MoshiConfig.from_dict(published["config"]))
    formats = {key: form for key, (form, _) in published["released"].items()}
    shapes = release_shapes(config)
    assert set(shapes) == set(formats)
    rng = np.random.default_rng(0)
    tensors = {
        key: rng.normal(size=shape).astype(FLOATS[formats[key]]) for key, shape in shapes.items()
    }
    release = tmp_path / "release"
    release.mkdir()
    write_config(release, config)
    infos = {key: TensorInfo(shape, formats[key]) for key, shape in shapes.items()}
    write_safetensors(release / "model.safetensors", infos, tensors.__getitem__)
    to_jax(release, tmp_path / "jax")
    to_torch(tmp_path / "jax", tmp_path / "back")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "back" / file).read_bytes() == (release / file).read_bytes()
