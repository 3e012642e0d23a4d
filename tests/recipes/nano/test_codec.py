"""Both stages of the codec's training, on a toy: they learn, go on after a kill, keep the codes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mimi_jax import decode, encode
from recipes.nano import codec as codec_recipe
from recipes.nano import decoder as decoder_recipe
from recipes.nano.codec import CodecRecipe, load_codec
from recipes.nano.decoder import DecoderRecipe
from recipes.nano.tracks import FRAME

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def toy(humming, toy_codec):
    patch = pytest.MonkeyPatch()
    patch.setattr(codec_recipe, "nano_mimi", lambda: toy_codec)
    for module in (codec_recipe, decoder_recipe):
        patch.setattr(module, "read_bank", lambda: humming)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A codec of four updates, two of them quantized, run in one go."""
    folder = tmp_path_factory.mktemp("codec")
    recipe = CodecRecipe(
        folder=folder, steps=4, unquantized_steps=2, batch=2, frames=4, save_every=2
    )
    return recipe, codec_recipe.train(recipe)


@pytest.fixture(scope="module")
def heard():
    return np.random.default_rng(0).normal(0, 0.1, (1, 12 * FRAME)).astype(np.float32)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_codec_that_was_stopped_goes_on_with_the_same_bits(trained, tmp_path):
    recipe, expected = trained
    stopped = replace(recipe, folder=tmp_path)
    codec_recipe.train(replace(stopped, stop_after_s=0.0))
    assert_equal(codec_recipe.train(stopped), expected)


def test_the_folder_holds_what_was_trained(trained):
    recipe, expected = trained
    mimi, params = load_codec(recipe.folder)
    assert mimi.config.num_codebooks == 3
    book = params["quantizer"]["acoustic"]["codebooks"][1]["embedding"]
    np.testing.assert_allclose(
        book, expected["quantizer"]["acoustic"]["codebooks"][1]["embedding"], rtol=1e-5
    )
    assert_equal(params["decoder"], expected["decoder"])


def test_codebooks_are_started_when_their_time_comes(trained, tmp_path):
    recipe, expected = trained
    never = replace(recipe, folder=tmp_path, steps=2)
    before = codec_recipe.train(never)["quantizer"]["semantic"]["codebooks"][0]
    after = expected["quantizer"]["semantic"]["codebooks"][0]
    assert not np.allclose(before["embedding"], after["embedding"])


def test_a_further_trained_decoder_sounds_better_and_keeps_every_code(trained, tmp_path, heard):
    recipe, _ = trained
    mimi, _ = load_codec(recipe.folder)
    better = DecoderRecipe(
        start=recipe.folder, folder=tmp_path / "whole", steps=30, batch=2, frames=6, tracks=4,
        track_frames=12, save_every=10,
    )  # fmt: skip
    better.folder.mkdir()
    params = decoder_recipe.train(better)
    _, before = load_codec(recipe.folder)
    codes = [jax.jit(lambda p: encode(mimi, p, jnp.asarray(heard)))(p) for p in (before, params)]
    assert_equal(*codes)
    maker = decoder_recipe.TrackMaker(decoder_recipe.read_bank())
    tracks = decoder_recipe.encoded_tracks(better, mimi, before, maker)
    errors = []
    for p in (before, params):
        pcm = jax.jit(lambda p: decode(mimi, p, jnp.asarray(tracks.codes)))(p)
        errors.append(
            float(np.abs(np.abs(np.fft.rfft(pcm)) - np.abs(np.fft.rfft(tracks.pcm))).mean())
        )
    assert errors[1] < 0.9 * errors[0]

    stopped = replace(better, folder=tmp_path / "stopped", stop_after_s=0.0)
    stopped.folder.mkdir()
    decoder_recipe.train(stopped)
    assert_equal(decoder_recipe.train(replace(stopped, stop_after_s=None)), params)
