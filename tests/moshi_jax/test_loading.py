import json
import shutil

import jax
import numpy as np
import pytest

import moshi_jax
from convert import ConversionError
from helium_jax import Sampler, Sampling
from layers_jax import Precision
from moshi_jax.loading import load, released_sampling


def tokens(session, frames):
    out = [session.step(frame) for frame in frames]
    return [(int(o.text[0]), *np.asarray(o.codes[0]).tolist()) for o in out]


def test_the_recommended_sampling_is_that_of_the_release():
    settings = {"temp": 0.5, "temp_text": 0.25, "top_k": 10, "top_k_text": 0}
    assert released_sampling(settings) == Sampling(
        text=Sampler(temperature=0.25, top_k=None), audio=Sampler(temperature=0.5, top_k=10)
    )
    assert released_sampling({}) == Sampling()
    assert released_sampling({"use_sampling": False, "temp": 0.5}) == Sampling.greedy()
    with pytest.raises(ValueError, match=r"lm_gen_config has cfg_coef, expected only .*`sampling`"):
        released_sampling({"cfg_coef": 2.0})


def test_a_loaded_session_gives_the_recorded_tokens_of_the_reference(golden, tiny_checkpoint):
    _, recorded, _ = golden("checkpoint_moshi_tiny_e2e")
    session = load(tiny_checkpoint, precision=Precision.f32(), sampling=Sampling.greedy())
    frames = recorded["inputs/pcm"][:, None]
    valid = recorded["expected/valid"]
    got = np.array(tokens(session, frames))
    assert (got[~valid] == -2).all()
    np.testing.assert_array_equal(got[valid], recorded["expected/out"][valid])


def test_the_seed_decides_the_draws(tiny_checkpoint):
    frames = np.zeros((6, 1, 1920), np.float32)
    first, again, other = (tokens(load(tiny_checkpoint, seed=s), frames) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_formats_of_the_folder_are_kept_unless_told_otherwise(tiny_checkpoint):
    def formats(session):
        return {leaf.dtype.name for leaf in jax.tree.leaves(session._params[1])}

    assert formats(load(tiny_checkpoint)) == {"bfloat16"}
    assert formats(load(tiny_checkpoint, precision=Precision.f32())) == {"float32"}


def test_a_folder_with_an_unusable_file_is_refused(tiny_checkpoint, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_layers": 3}))
    with pytest.raises(ConversionError, match=r"layers\.2"):
        load(folder)


def test_public_names_come_on_first_use():
    assert moshi_jax.load is load
    assert set(dir(moshi_jax)) == set(moshi_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = moshi_jax.nothing
