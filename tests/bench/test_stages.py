import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bench.presets import preset
from bench.stages import STAGES, Model, frame_program, made, stage_calls, started
from helium_jax import Moshi, Sampling
from layers_jax import Precision, split
from layers_jax.functional import abstract
from mimi_jax import Mimi


@pytest.fixture(scope="module")
def model():
    """Shapes in place of parameters: what is not run needs none."""
    shape = preset("nano")
    mimi = abstract(lambda: Mimi(shape.mimi, rngs=nnx.Rngs(0)))
    lm = abstract(lambda: Moshi(shape.lm, rngs=nnx.Rngs(0)))
    return Model(mimi, lm, (split(mimi)[1], split(lm)[1]))


def test_sessions_start_where_they_are_told(model):
    state = started(model, 3, 0.5)
    np.testing.assert_array_equal(state.lm.offset, [20] * 3)
    assert model.frame_s == 0.08


def test_a_profile_can_tell_the_stages_of_the_frame_apart(model):
    """They are named scopes of the traced program."""
    pcm = jnp.zeros((1, model.mimi.config.frame_samples))
    lowered = frame_program(model, Sampling()).lower(
        model.params, started(model, 1, 0), pcm, jnp.ones(1, bool)
    )
    text = lowered.as_text(debug_info=True)
    assert {name for name in STAGES if re.search(rf"/{name}/", text)} == set(STAGES)


@pytest.mark.slow
def test_stages_run_over_and_over_on_their_own_state():
    model, sizes = made(preset("nano"), Precision.f32()), {}
    for name, call in stage_calls(model, 2, 1.0, Sampling()):
        first, second = (jax.tree.map(np.asarray, call()) for _ in range(2))
        assert jax.tree.structure(first) == jax.tree.structure(second)
        sizes[name] = [leaf.shape for leaf in jax.tree.leaves(first)]
    assert sizes["encode"] == [(2, 8)] and sizes["decode"] == [(2, 1920)]
    assert sizes["temporal"] == [(2, 255)] and sizes["depth"] == [(2,)] * 8
    assert sizes["sampling"] == [(2,)] * 2 * 9
