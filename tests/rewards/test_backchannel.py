import itertools

import numpy as np
import pytest

from rewards import BackchannelConfig, Dialogue, backchanneling


def reward(agent, expected, duration_s=10.0, **config):
    dialogue = Dialogue.from_dict(
        {"duration_s": duration_s, "agent": agent, "backchannels": expected}
    )
    return backchanneling(dialogue, BackchannelConfig(**config)).value


def test_missing_without_the_label_but_not_with_an_empty_one():
    assert backchanneling(Dialogue(duration_s=5.0)).value is None
    assert reward([], []) == 1.0


def test_spam_does_not_pay_one_to_one():
    spam = [[2.2, 2.5], [3.0, 3.3], [3.8, 4.1]]
    assert reward(spam, [[3.0, 3.4]]) == pytest.approx(0.5)  # 1 hit, 2 false


def test_rest_of_carried_over_speech():
    label = [[3.0, 3.4]]
    answer = [3.1, 3.5]
    assert reward([[-2.0, 0.9], answer], label) == 1.0  # a rest of at most 1 s is ignored
    assert reward([[-2.0, 1.2], answer], label) == pytest.approx(2 / 3)


def test_speech_cut_by_the_end_counts_with_its_inside():
    assert reward([[9.5, 12.0]], [[9.4, 9.9]]) == 1.0
    assert reward([[10.0, 12.0]], []) == 1.0  # starts with the end: outside


def test_takeovers_can_cost_more_than_silence():
    label, takeover = [[3.0, 3.4]], [[5.0, 8.0]]
    assert reward(takeover, label) == reward([], label) == 0.0
    assert reward(takeover, label, takeover_penalty=0.1) == pytest.approx(-0.1)


def largest_matching(onsets, expected, tolerance):
    best = 0
    small, large = (onsets, expected) if len(onsets) < len(expected) else (expected, onsets)
    for chosen in itertools.permutations(large, len(small)):
        best = max(best, sum(abs(a - b) <= tolerance for a, b in zip(small, chosen, strict=True)))
    return best


def test_matching_is_maximum():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        # On a grid of 0.5 s, so that runs stay apart and distances equal to the tolerance occur.
        onsets, expected = (
            sorted(rng.choice(24, size=rng.integers(1, 6), replace=False) * 0.5) for _ in range(2)
        )
        best = largest_matching(onsets, expected, 1.0)
        hits += best
        f1 = 2 * best / (len(onsets) + len(expected))
        agent, label = ([[float(t), float(t) + 0.1] for t in times] for times in (onsets, expected))
        assert reward(agent, label, duration_s=13.0) == pytest.approx(f1)
    assert hits > 200


def test_what_the_rule_saw():
    dialogue = Dialogue(
        duration_s=10.0,
        agent=((1.0, 1.5), (3.0, 5.0), (7.0, 7.5)),
        backchannels=((1.2, 1.4), (9.0, 9.5)),
    )
    outcome = backchanneling(dialogue)
    assert outcome.value == pytest.approx(2 / 5)
    assert outcome.facts == {
        "rule": "takeover", "hits": 1, "false_alarms": 2, "missed": 1, "takeovers": 1
    }  # fmt: skip
    nobody = backchanneling(Dialogue(duration_s=5.0, backchannels=()))
    assert (nobody.value, nobody.facts["rule"]) == (1.0, "nobody speaks")
    silent = backchanneling(Dialogue(duration_s=5.0, backchannels=((1.0, 1.5),)))
    assert (silent.value, silent.facts["rule"]) == (0.0, "silent")


def test_matching_intervals_is_maximum_where_the_first_fit_is_not():
    # Each of the two short ones is near the first; only one of them is near the second.
    agent = [[1.0, 1.9], [2.3, 2.5]]
    label = [[2.0, 2.2], [3.4, 3.9]]
    assert reward(agent, label, match="interval") == 1.0
    assert reward(agent, label, match="onset") == pytest.approx(0.5)
