"""A run that is killed goes on with the same bits; one that diverges stops and says so."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recipes.nano.training import TrainState, load_state, make_optimizer, run_updates, save_state


@pytest.fixture
def descent():
    optimizer = make_optimizer(0.1, 12)

    def update(state, step):
        goal = np.random.default_rng(step).normal(3.0, 0.1, 4)
        loss, gradient = jax.value_and_grad(lambda p: jnp.sum((p["x"] - goal) ** 2))(state.params)
        updates, opt_state = optimizer.update(gradient, state.optimizer, state.params)
        return TrainState(optax.apply_updates(state.params, updates), opt_state), {"loss": loss}

    params = {"x": jnp.zeros(4)}
    return update, TrainState(params, optimizer.init(params))


def run(path, descent, *, stop=None, steps=12):
    update, state = descent
    calls = []

    def counted(state, step):
        if step == stop:
            raise KeyboardInterrupt
        calls.append(step)
        return update(state, step)

    def go():
        return run_updates(
            path, state, steps=steps, save_every=3, update=counted, saved=lambda state, step: None
        )

    return go, calls


def test_a_killed_run_goes_on_with_the_same_bits(tmp_path, descent, capsys):
    whole, _ = run(tmp_path / "whole.npz", descent)
    expected = whole()
    killed, _ = run(tmp_path / "killed.npz", descent, stop=8)
    with pytest.raises(KeyboardInterrupt):
        killed()
    resumed, calls = run(tmp_path / "killed.npz", descent)
    found = resumed()
    assert calls == [7, 8, 9, 10, 11, 12]
    assert "going on after 6 updates" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_time_that_is_up_saves_and_stops(tmp_path, descent):
    update, state = descent
    run_updates(
        tmp_path / "s.npz", state, steps=12, save_every=100, update=update,
        saved=lambda state, step: None, stop_after_s=0.0,
    )  # fmt: skip
    assert load_state(tmp_path / "s.npz", state)[1] == 1


def test_the_state_of_another_model_is_refused(tmp_path, descent):
    _, state = descent
    save_state(tmp_path / "s.npz", state, 3)
    other = TrainState({"x": jnp.zeros(5)}, state.optimizer)
    with pytest.raises(ValueError, match="another model"):
        load_state(tmp_path / "s.npz", other)


@pytest.mark.parametrize("losses", [[1.0] * 50 + [float("nan")], [1.0] * 50 + [9.0] * 50])
def test_divergence_stops_the_run_with_one_line(tmp_path, losses):
    state = TrainState(jnp.zeros(1), ())
    with pytest.raises(ValueError, match=r"training diverged: .* --learning-rate$"):
        run_updates(
            tmp_path / "s.npz", state, steps=len(losses), save_every=500,
            update=lambda state, step: (state, {"loss": losses[step - 1]}),
            saved=lambda state, step: None,
        )  # fmt: skip
