import pytest

from rewards.judge import Decision, OutageGuard


def decisions(policy, *available, **options):
    guard = OutageGuard(policy, **options)
    return [guard.before_epoch(available=state) for state in available]


@pytest.mark.parametrize("policy", ["defer", "block", "degrade", "abort"])
def test_nothing_changes_while_the_judge_is_there(policy):
    assert decisions(policy, True, True) == [Decision()] * 2


def test_defer_draws_other_axes_and_then_stops():
    without = Decision(draw="without judge", judge=False)
    found = decisions("defer", False, False, True, False, False, False, False)
    assert found[:6] == [without, without, Decision(), without, without, without]
    assert found[6].stop == "the judge is away, and 3 epochs without it are over"
    assert decisions("defer", False, max_deferred_epochs=0)[0].stop


def test_the_other_policies():
    assert decisions("block", False) == [Decision()]
    assert decisions("degrade", False) == [Decision(judge=False)]
    assert "abort" in decisions("abort", False)[0].stop
    with pytest.raises(Exception, match="guess"):  # the type checker's, while testing
        OutageGuard("guess")


@pytest.mark.parametrize("policy", ["defer", "block", "degrade", "abort"])
def test_a_used_up_budget_stops(policy):
    decision = OutageGuard(policy).before_epoch(available=False, exhausted=True)
    assert "budget is used up" in decision.stop
