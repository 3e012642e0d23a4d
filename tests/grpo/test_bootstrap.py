"""The paired bootstrap against cases whose answer is known."""

import numpy as np
import pytest

from grpo.bootstrap import compare

NAMES = [f"c{n}" for n in range(200)]


def pairs(shift, *, noise=1.0, seed=0, count=200):
    """Segments that differ much from one another and little between policies."""
    rng = np.random.default_rng(seed)
    before = rng.normal(size=count) * 5
    return before, before + shift + noise * rng.normal(size=count)


def test_intervals_are_those_of_the_normal_distribution():
    before, after = pairs(0.5)
    found = compare(before, after, NAMES)
    change = after - before
    assert found.change.mean == pytest.approx(change.mean())
    assert found.before.mean == pytest.approx(before.mean())
    assert found.after.mean == pytest.approx(after.mean())
    for estimate, values in ((found.change, change), (found.before, before)):
        half = 1.96 * values.std(ddof=1) / np.sqrt(200)
        assert estimate.mean - estimate.low == pytest.approx(half, rel=0.06)
        assert estimate.high - estimate.mean == pytest.approx(half, rel=0.06)
    assert (found.segments, found.clusters) == (200, 200)


def test_pairing_finds_what_the_two_intervals_hide():
    found = compare(*pairs(0.5), NAMES)
    assert found.after.low < found.before.high  # by themselves they overlap
    assert found.p < 0.001 and found.change.low > 0


def test_a_loss_is_as_significant_as_a_gain_and_nothing_is_not():
    before, after = pairs(0.5)
    assert compare(after, before, NAMES).p == pytest.approx(compare(before, after, NAMES).p)
    assert compare(after, before, NAMES).change.high < 0
    assert compare(before, before, NAMES).p == 1.0
    assert compare(before, before, NAMES).change.mean == 0.0


def test_under_no_effect_p_is_below_a_twentieth_about_one_time_in_twenty():
    found = [compare(*pairs(0.0, seed=n), NAMES, draws=1000).p < 0.05 for n in range(300)]
    assert 0.02 < np.mean(found) < 0.09


def test_segments_of_one_conversation_are_not_many_observations():
    rng = np.random.default_rng(0)
    effect = np.repeat(rng.normal(0.3, 1.0, 20), 10)  # the same in all ten of a conversation
    before = np.zeros(200)
    alone = compare(before, effect, NAMES)
    together = compare(before, effect, [f"c{n // 10}" for n in range(200)])
    assert together.change.mean == pytest.approx(alone.change.mean)
    width, narrow = (c.change.high - c.change.low for c in (together, alone))
    assert width / narrow == pytest.approx(np.sqrt(10), rel=0.15)
    assert together.clusters == 20 and together.p > alone.p


def test_missing_segments_are_left_out_in_pairs():
    before, after = pairs(0.5)
    before[3] = after[7] = np.nan
    found = compare(before, after, NAMES)
    kept = np.delete(np.arange(200), [3, 7])
    assert found.segments == 198
    assert found.before.mean == pytest.approx(before[kept].mean())


def test_p_is_never_zero():
    found = compare(np.zeros(20), np.ones(20), NAMES[:20], draws=99)
    assert found.p == pytest.approx(2 / 100)


@pytest.mark.parametrize(
    ("before", "clusters", "message"),
    [
        (np.zeros(3), ["a", "b"], "got 3 and 3 segments of 2 clusters"),
        (np.array([np.nan, 0.0, np.nan]), ["a", "b", "c"], r"1 cluster\(s\), expected 2 or more"),
    ],
)
def test_what_cannot_be_compared_is_refused(before, clusters, message):
    with pytest.raises(ValueError, match=message):
        compare(before, np.zeros(3), clusters)
