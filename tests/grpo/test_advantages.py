"""Advantages: missing values, floors, weights, and the estimators by name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grpo.advantages import (
    batch_standardise,
    group_advantages,
    group_statistics,
    standardise,
)
from grpo.config import AdvantageConfig, GRPOConfig
from grpo.epoch import rollout_advantages


def rows(components):
    return np.array([[np.nan if r is None else r for r in row] for row in components], np.float64)


def test_a_missing_reward_is_zero_and_does_not_move_the_others():
    scores = standardise(rows([[1.0, 3.0, None, 5.0]])[0])
    assert scores[2] == 0
    np.testing.assert_allclose(scores[[0, 1, 3]], standardise(np.array([1.0, 3.0, 5.0])))


@pytest.mark.parametrize(("valid", "kept"), [(16, True), (12, True), (11, False), (1, False)])
def test_a_component_needs_three_quarters_of_the_group(valid, kept):
    rewards = np.arange(16.0)
    rewards[valid:] = np.nan
    assert standardise(rewards).any() == kept


def test_a_small_group_needs_two_values():
    assert standardise(np.array([1.0, 2.0])).any()
    assert not standardise(np.array([1.0, np.nan])).any()


def test_a_dropped_component_leaves_the_other_alone():
    components = rows([[None, None, None, 4.0], [1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(group_advantages(components), standardise(components[1]))


def test_equal_rewards_give_exactly_zero_despite_rounding():
    assert (standardise(np.full(7, 0.1) + 1e-17) == 0).all()


def test_the_spread_uses_the_population():
    np.testing.assert_allclose(standardise(np.array([0.0, 2.0])), [-1 / 1.0001, 1 / 1.0001])


def test_infinite_reward_and_wrong_floors_are_refused():
    with pytest.raises(ValueError, match="finite or NaN"):
        standardise(np.array([1.0, np.inf]))
    with pytest.raises(ValueError, match="2 values for 1 components"):
        group_advantages(np.ones((1, 3)), (0.0, 0.0))
    with pytest.raises(ValueError, match="weights has 1 values for 2 components"):
        group_advantages(np.ones((2, 3)), weights=(1.0,))
    with pytest.raises(ValueError, match="expected finite numbers"):
        group_advantages(np.ones((1, 3)), weights=(np.nan,))
    with pytest.raises(Exception, match="estimator"):  # the type checker's, while testing
        group_advantages(np.ones((1, 3)), estimator="ppo")


def test_group_statistics_say_why_a_component_is_silent():
    found = group_statistics(rows([[1.0, 3.0, None, 5.0]])[0])
    assert (found.valid, found.mean, found.state) == (3, 3.0, "used")
    assert found.std == pytest.approx(np.sqrt(8 / 3))
    assert group_statistics(np.array([1.0, 1.01]), 0.02).state == "constant"
    assert group_statistics(rows([[1.0, None, None, 5.0]])[0]).state == "too few"
    nothing = group_statistics(rows([[None, None]])[0])
    assert (nothing.valid, nothing.state) == (0, "too few")
    assert np.isnan(nothing.mean) and np.isnan(nothing.std)


COMPONENTS = [[-1.0, -3.0, -2.0, -2.0], [2.0, 0.0, 0.0, 2.0]]
TOTAL = np.array([1.0, -3.0, -2.0, 0.0])


def test_estimators_of_the_sum():
    components = rows(COMPONENTS)
    centred = TOTAL - TOTAL.mean()
    got = {name: group_advantages(components, estimator=name) for name in ("grpo", "drgrpo")}
    np.testing.assert_allclose(got["drgrpo"], centred)
    np.testing.assert_allclose(got["grpo"], centred / (TOTAL.std() + 1e-4))
    leave_one_out = [TOTAL[i] - np.delete(TOTAL, i).mean() for i in range(4)]
    np.testing.assert_allclose(group_advantages(components, estimator="rloo"), leave_one_out)


def test_the_decoupled_sum_is_not_the_normalised_sum():
    components = rows([[0.0, -10.0, -5.0, -5.0], [0.0, 2.0, 0.0, 2.0]])
    decoupled, summed = (group_advantages(components, estimator=e) for e in ("gdpo", "grpo"))
    assert decoupled[3] > 0.9  # the judge's view of a rollout with a mean delay
    assert summed[3] < 0.4


def test_weights():
    components = rows(COMPONENTS)
    expected = 2 * standardise(components[0]) + 0.5 * standardise(components[1])
    np.testing.assert_allclose(group_advantages(components, weights=(2, 0.5)), expected)
    got = group_advantages(components, weights=(2, 0.5), estimator="drgrpo")
    total = 2 * components[0] + 0.5 * components[1]
    np.testing.assert_allclose(got, total - total.mean())


@pytest.mark.parametrize("estimator", ["grpo", "drgrpo", "rloo"])
def test_a_sum_with_a_missing_part_is_missing(estimator):
    components = rows([[-1.0, -3.0, -2.0, -2.0], [2.0, 0.0, None, 2.0]])
    got = group_advantages(components, estimator=estimator)
    assert got[2] == 0.0
    rest = group_advantages(components[:, [0, 1, 3]], estimator=estimator)
    np.testing.assert_allclose(got[[0, 1, 3]], rest)


@pytest.mark.parametrize("estimator", ["gdpo", "grpo", "drgrpo", "rloo"])
def test_no_estimator_reads_a_component_without_signal(estimator):
    components = rows([[-0.30, -0.31, -0.30, -0.31], [2.0, 0.0, 0.0, 2.0]])
    got = group_advantages(components, (0.02, 0.0), estimator=estimator)
    alone = group_advantages(components[1:], estimator=estimator)
    np.testing.assert_array_equal(got, alone)
    assert not group_advantages(components, (0.02, 5.0), estimator=estimator).any()


def test_batch_standardise():
    advantages = np.array([[2.0, -2.0], [1.0, -1.0]])
    np.testing.assert_allclose(batch_standardise(advantages), advantages / np.sqrt(2.5), rtol=1e-3)
    assert not batch_standardise(np.zeros((2, 2))).any()


def test_the_configuration_weighs_rewards_by_name():
    rewards = {"turn_taking": np.array([-1.0, -3.0]), "judge": np.array([0.0, 1.0])}
    advantage = AdvantageConfig(estimator="drgrpo", weights={"judge": 4.0}, clip=0.5)
    config = GRPOConfig(
        checkpoint=Path("m"), segments=Path("s"), run_dir=Path("r"), advantage=advantage
    )
    # Sums -1 + 0 and -3 + 4 are -1 apart from their mean and +1, then cut off.
    np.testing.assert_allclose(rollout_advantages(config, rewards), [-0.5, 0.5])
    unweighted = replace(config, advantage=AdvantageConfig(estimator="drgrpo"))
    np.testing.assert_allclose(rollout_advantages(unweighted, rewards), [0.5, -0.5])
