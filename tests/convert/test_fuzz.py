"""Whatever is done to a file: the model that was meant, or one error that says what is wrong."""

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from convert import ConversionError, load_moshi
from convert.checkpoint import write_config
from convert.sources import abstract_params, memory_source

FEW = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def whole(small_lm, random_params, tmp_path_factory):
    """A folder, its tensors, and what it loads as."""
    folder = tmp_path_factory.mktemp("fuzz")
    write_config(folder, small_lm)
    params = random_params(small_lm, dtypes=[np.dtype(np.float32)])
    source = memory_source(small_lm, params, abstract_params(small_lm), subject="fuzz")
    source.write(folder / "model.safetensors")
    return folder, load_file(folder / "model.safetensors"), params


def drop(draw, tensors, key):
    del tensors[key]
    return key


def add(draw, tensors, key):
    name = f"{key}.{draw(st.sampled_from(['copy', 'lora_A.weight', 'scales', '0']))}"
    tensors[name] = tensors[key]
    return name


def rename(draw, tensors, key):
    name = draw(st.sampled_from([key.upper(), f"model.{key}", key[1:], f"{key} "]))
    tensors[name] = tensors.pop(key)
    return key


def transpose(draw, tensors, key):
    shape = tensors[key].shape
    turned = tensors[key].T if len(set(shape)) > 1 else tensors[key][None]
    tensors[key] = np.ascontiguousarray(turned)
    return key


def retype(draw, tensors, key):
    dtype = draw(st.sampled_from([np.int8, np.int32, np.float64, np.uint8, np.bool_]))
    tensors[key] = tensors[key].astype(dtype)
    return key


def resize(draw, tensors, key):
    axis = draw(st.integers(0, tensors[key].ndim - 1))
    tensors[key] = np.concatenate([tensors[key], tensors[key]], axis=axis)
    return key


def poison(draw, tensors, key):
    value = tensors[key].copy()
    where = draw(st.integers(0, value.size - 1))
    value.reshape(-1)[where] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    tensors[key] = value
    return key


@pytest.mark.slow
@FEW
@given(data=st.data())
def test_a_changed_tensor_is_an_error_that_names_it(data, whole):
    folder, tensors, _ = whole
    changed = dict(tensors)
    work = data.draw(st.sampled_from([drop, add, rename, transpose, retype, resize, poison]))
    key = data.draw(st.sampled_from(sorted(tensors)))
    named = work(data.draw, changed, key)
    save_file(changed, folder / "model.safetensors")
    with pytest.raises(ConversionError) as caught:
        load_moshi(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert named.strip() in message, (work.__name__, named, message)


@pytest.mark.slow
@FEW
@given(data=st.data())
def test_a_cut_file_is_an_error(data, whole, tmp_path_factory):
    folder, tensors, _ = whole
    save_file(tensors, folder / "model.safetensors")
    content = (folder / "model.safetensors").read_bytes()
    kept = data.draw(st.integers(0, len(content) - 1))
    (folder / "model.safetensors").write_bytes(content[:kept])
    with pytest.raises(ConversionError, match=r"fetch it again|not a safetensors file"):
        load_moshi(folder)


@pytest.mark.slow
@FEW
@given(data=st.data())
def test_a_flipped_bit_of_the_header_changes_nothing_or_is_an_error(data, whole):
    folder, tensors, params = whole
    save_file(tensors, folder / "model.safetensors")
    content = bytearray((folder / "model.safetensors").read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    content[data.draw(st.integers(0, header - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "model.safetensors").write_bytes(content)
    try:
        _, loaded = load_moshi(folder)
    except ConversionError as error:
        assert "\n" not in str(error)
    else:
        jax.tree.map(np.testing.assert_array_equal, loaded, params)
