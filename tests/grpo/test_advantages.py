"""Advantages: the recorded worked examples, missing values, floors."""

import json
from pathlib import Path

import numpy as np
import pytest

from grpo.advantages import group_advantages, standardise

EXAMPLES = json.loads(
    (Path(__file__).resolve().parent.parent / "golden" / "reward_examples.json").read_text()
)["advantages"]


def rows(components):
    return np.array([[np.nan if r is None else r for r in row] for row in components], np.float64)


@pytest.mark.parametrize("case", EXAMPLES, ids=[case["name"] for case in EXAMPLES])
def test_worked_examples(case):
    got = group_advantages(rows(case["components"]), tuple(case["params"].get("min_std", ())))
    np.testing.assert_allclose(got, case["expected"], atol=5e-5)


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
