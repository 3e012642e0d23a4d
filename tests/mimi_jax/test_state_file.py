import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from layers_jax.functional import abstract
from layers_jax.snapshot import save_tree
from mimi_jax import Mimi, init_state, load_state, save_state

RAN = np.ones(2, bool)


def frame(seed):
    rng = np.random.default_rng(seed)
    pcm = rng.uniform(-1, 1, (2, 8)).astype(np.float32)
    return pcm, rng.integers(0, 7, (2, 3)).astype(np.int32)


def test_a_session_goes_on_after_a_restart_bit_for_bit(small, small_frame, tmp_path):
    """Past the wrap of the ring, with a row that started later."""
    state = init_state(small.mimi, 2)
    for call in range(5):
        state, *_ = small_frame(state, *frame(call), np.array([True, call > 1]))
    save_state(tmp_path / "state.safetensors", small.mimi, state)
    again = load_state(tmp_path / "state.safetensors", small.mimi)
    assert again.encoder.offset.tolist() == [10, 6]
    for call in range(5, 8):
        state, *expected = small_frame(state, *frame(call), RAN)
        again, *got = small_frame(again, *frame(call), RAN)
        jax.tree.map(np.testing.assert_array_equal, got, expected)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_the_state_of_another_codec_is_refused(small, tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, small.mimi, init_state(small.mimi, 1))
    config = small.config
    fork = dataclasses.replace(config.transformer, ring="personaplex")
    fewer = dataclasses.replace(config, num_codebooks=1)  # no part of the state

    def codec(config):
        return abstract(lambda: Mimi(config, rngs=nnx.Rngs(0)))

    assert load_state(path, codec(fewer)).encoder.offset.shape == (1,)
    with pytest.raises(ValueError, match="was saved with ring 'kyutai' instead of 'personaplex'"):
        load_state(path, codec(dataclasses.replace(config, transformer=fork)))


def test_files_that_are_no_states_are_refused(small, tmp_path):
    from safetensors.numpy import save_file

    (tmp_path / "text").write_text("hello")
    save_file({"x": np.zeros(1)}, tmp_path / "other")
    save_tree(tmp_path / "session", {"x": np.zeros(1)}, {}, {})
    with pytest.raises(FileNotFoundError, match="got no file there, expected a saved state"):
        load_state(tmp_path / "none", small.mimi)
    with pytest.raises(ValueError, match="text is not a saved state"):
        load_state(tmp_path / "text", small.mimi)
    with pytest.raises(ValueError, match="other has format None, expected"):
        load_state(tmp_path / "other", small.mimi)
    with pytest.raises(ValueError, match="session says no batch, expected a codec state"):
        load_state(tmp_path / "session", small.mimi)
