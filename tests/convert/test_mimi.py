import re

import jax
import numpy as np
import pytest

from convert import ConversionError, params_from_tensors
from convert.mimi import code_vectors, mimi_rules
from convert.rules import flatten, plan
from convert.safetensors_io import TensorInfo
from convert.sources import abstract_params, memory_source
from mimi_jax import MimiConfig, mimi_24khz


def leaf_shapes(config):
    return {path: leaf.shape for path, leaf in flatten(abstract_params(config)).items()}


def test_the_table_gives_the_names_and_shapes_of_the_real_file(published_keys):
    published = published_keys("mimi")
    assert MimiConfig.from_dict(published["config"]) == mimi_24khz()
    leaves = leaf_shapes(mimi_24khz())
    tensors = {k: TensorInfo(tuple(s), f) for k, (f, s) in published["released"].items()}
    made = plan(mimi_rules(mimi_24khz()), leaves, tensors)
    assert made.tensor_shapes == {key: info.shape for key, info in tensors.items()}
    assert len(made.leaves) + len(made.derived) == len(leaves)
    assert all(path.endswith(".embedding") for path in made.derived) and len(made.derived) == 32


@pytest.mark.parametrize("seed", range(3))
def test_there_and_back_is_the_identity_on_random_tensors(seed, small_mimi, random_params):
    shapes = abstract_params(small_mimi)
    source = memory_source(small_mimi, random_params(small_mimi, seed), shapes, subject="test")
    tensors = {key: source.read(key) for key in source.tensors}
    params = params_from_tensors(small_mimi, tensors)
    back = memory_source(small_mimi, params, shapes, subject="test").recast(source.formats)
    assert {key: back.read(key).tobytes() for key in back.tensors} == {
        key: tensor.tobytes() for key, tensor in tensors.items()
    }


def test_code_vectors_are_means_and_are_never_written(small_mimi, random_params):
    shapes = abstract_params(small_mimi)
    source = memory_source(small_mimi, random_params(small_mimi), shapes, subject="test")
    assert not any(re.search(r"\.embedding$", key) for key in source.tensors)
    params = params_from_tensors(small_mimi, {key: source.read(key) for key in source.tensors})
    codebook = jax.tree.map(np.asarray, params["quantizer"]["acoustic"]["codebooks"][1])
    np.testing.assert_array_equal(
        codebook["embedding"], codebook["embedding_sum"] / codebook["cluster_usage"][:, None]
    )


def test_a_code_that_was_never_used_does_not_divide_by_zero():
    vectors = code_vectors(np.ones((2, 3), np.float32), np.array([0.0, 4.0], np.float32))
    np.testing.assert_array_equal(vectors, np.array([[1e5] * 3, [0.25] * 3], np.float32))
    assert vectors.dtype == np.float32


def test_older_names_of_the_same_tensors_load(small_mimi, random_params):
    shapes = abstract_params(small_mimi)
    source = memory_source(small_mimi, random_params(small_mimi), shapes, subject="test")
    tensors = {key: source.read(key) for key in source.tensors}
    names = (
        ("embedding_sum", "embed_avg"),
        ("cluster_usage", "cluster_size"),
        ("_initialized", "inited"),
        ("in_proj_weight", "in_projs.0.weight"),
        ("out_proj.weight", "out_projs.0.weight"),
    )

    def older(key):
        for new, old in names:
            key = re.sub(rf"(?<=\.){re.escape(new)}$", old, key)
        return key

    renamed = {older(key): value for key, value in tensors.items()}
    assert set(renamed) != set(tensors)
    jax.tree.map(
        np.testing.assert_array_equal,
        params_from_tensors(small_mimi, renamed),
        params_from_tensors(small_mimi, tensors),
    )


def test_a_language_model_is_not_a_codec(small_mimi, tiny_weights):
    with pytest.raises(ConversionError, match=r"missing encoder\.model.*unexpected depformer"):
        params_from_tensors(small_mimi, tiny_weights)
