from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from helium_jax import LutConfig, Moshi, Sampling, condition_rows, forward, init_state, step
from helium_jax.conditions import LutCondition, read_conditioners, write_conditioners
from layers_jax.functional import bind

QUALITY = LutConfig(name="quality", n_bins=4, dim=3, possible_values=("bad", "good"))
PLACE = LutConfig(name="place", n_bins=5, dim=2)


def test_rows_are_the_values_in_the_tables_order_and_one_more_for_none():
    values = [{"quality": "good", "place": None}, {"quality": None, "place": "Rome"}]
    rows = condition_rows((QUALITY, PLACE), values)
    assert rows[0].tolist() == [1, 5] and rows[1, 0] == 4
    # sha256 of the text, so that every process and the reference agree.
    assert rows[1, 1] == PLACE.row("Rome") == 2


@pytest.mark.parametrize(
    "given, message",
    [
        ({"quality": "fine"}, r"condition 'quality' is 'fine', expected one of \['bad', 'good'\]"),
        ({}, r"conditions are \[\], expected \['quality'\]"),
        ({"quality": "bad", "mood": "x"}, r"conditions are \['mood', 'quality'\], expected"),
    ],
)
def test_what_a_model_was_not_trained_on_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        condition_rows((QUALITY,), [given])


def test_a_condition_is_its_projected_row_and_not_given_has_a_vector_of_its_own(random_module):
    module, params = random_module(lambda: LutCondition(QUALITY, 6, rngs=nnx.Rngs(0)))
    got = np.asarray(bind(module, params)(jnp.array([1, 4])))
    known = np.asarray(params["table"])[1] @ np.asarray(params["projection"]["kernel"])
    np.testing.assert_allclose(got[0], known, atol=1e-6)
    np.testing.assert_array_equal(got[1], params["padding"])


def test_a_config_comes_back_as_it_was_written():
    written = write_conditioners((PLACE, QUALITY))
    assert read_conditioners(written["conditioners"], written["fuser"]) == ((PLACE, QUALITY), [])
    assert write_conditioners(()) == {} and read_conditioners(None, None) == ((), [])


def test_conditions_move_every_frame_and_the_model_insists_on_them(small, random_module):
    config = replace(small.config, conditioners=(QUALITY,))
    lm, params = random_module(lambda: Moshi(config, rngs=nnx.Rngs(0)))
    codes = jnp.zeros((2, config.num_streams, 3), jnp.int32)
    run = jax.jit(lambda rows: forward(lm, params, codes, rows).text)
    rows = jnp.asarray(condition_rows((QUALITY,), [{"quality": "bad"}, {"quality": "good"}]))
    text = np.asarray(run(rows))
    assert (np.abs(text[0] - text[1]).max(axis=-1) > 1e-3).all()
    np.testing.assert_array_equal(np.asarray(run(rows[::-1])), text[::-1])
    with pytest.raises(ValueError, match=r"conditions are missing, and the model has 1 condition"):
        user = jnp.zeros((2, 2), jnp.int32)
        step(lm, params, init_state(lm, 2), user, sampling=Sampling.greedy())
