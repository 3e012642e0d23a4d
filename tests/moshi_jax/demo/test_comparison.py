"""The rows that the demo prints."""

import io

import numpy as np
import pytest
from rich.console import Console

from grpo.heldout import SegmentScore
from moshi_jax.demo import compare_axes, table
from moshi_jax.demo.comparison import mean_kl


def score(number, axis, reward, value, *, judge=None, kl=0.0):
    rewards = {reward: np.array([value, value + 0.2])}
    if judge is not None:
        rewards["judge"] = np.array([judge, np.nan])
    return SegmentScore(
        segment_id=f"c{number // 2}/1/{axis}/{number}", axis=axis, rewards=rewards, kl=kl, agent=()
    )


def policy(gain, judge):
    rng = np.random.default_rng(1)
    turns = [
        score(n, "turn", "turn_taking", rng.normal() + gain, judge=judge, kl=0.2) for n in range(20)
    ]
    barge_ins = [
        score(n, "interruption", "user_interruption", -1.0, judge=0.5, kl=0.4) for n in range(10)
    ]
    pauses = [score(n, "pause", "pause_handling", -0.5 + 0.5 * gain, kl=0.0) for n in range(20)]
    return [*barge_ins, *turns, *pauses]


def test_a_row_a_reward_timing_first_the_judge_of_all_axes_last():
    rows = compare_axes(policy(0.0, 1.0), policy(1.0, 1.5))
    assert [(row.axis, row.reward) for row in rows] == [
        ("pause", "pause_handling"),
        ("turn", "turn_taking"),
        ("interruption", "user_interruption"),
        ("turn", "judge"),
        ("interruption", "judge"),
        ("all", "judge"),
    ]
    turn, judged = rows[1].comparison, rows[-1].comparison
    assert turn.change.mean == pytest.approx(1.0) and turn.p < 0.001
    assert (turn.segments, turn.clusters) == (20, 10)
    assert rows[2].comparison.p == 1.0  # the same
    # 20 turns gained 0.5, 10 interruptions nothing; the missing half of each group is left out.
    assert judged.change.mean == pytest.approx(0.5 * 20 / 30)
    assert judged.before.mean == pytest.approx((20 * 1.0 + 10 * 0.5) / 30)


def test_other_segments_are_not_compared():
    with pytest.raises(ValueError, match="scored on different segments"):
        compare_axes(policy(0.0, 1.0), policy(0.0, 1.0)[1:])


def test_mean_kl():
    scores = policy(0.0, 1.0)
    assert mean_kl(scores) == pytest.approx((10 * 0.4 + 20 * 0.2) / 50)
    assert mean_kl(scores, "interruption") == pytest.approx(0.4)


def test_the_table_says_mean_interval_and_p():
    rows = compare_axes(policy(0.0, 1.0), policy(1.0, 1.5))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table(rows, title="held-out"))
    printed = console.export_text()
    change = rows[0].comparison.change
    assert f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]" in printed
    assert "<0.001" in printed
