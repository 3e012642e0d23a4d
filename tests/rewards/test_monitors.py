"""Each monitor on rollouts that are changed in one way: it speaks, and no other one does."""

import dataclasses
import json

import numpy as np
import pytest

from rewards import Dialogue
from rewards.monitors import (
    THRESHOLDS,
    Finding,
    Mean,
    Monitors,
    Threshold,
    epoch_means,
    statistics_table,
)
from rewards.rollout_statistics import RolloutView

SENTENCES = [
    "yes that sounds like a good plan to me",
    "i would take the train and walk from there",
    "did you ask her what she thinks about it",
    "we had a lot of rain here last week as well",
]


def due(seed):
    """The user talks until 8 s with a pause at 4 s; the model answers in three runs."""
    jitter = float(np.random.default_rng(seed).uniform(-0.05, 0.05))
    starts = (8.3, 12.0, 16.0)
    return RolloutView(
        dialogue=Dialogue(
            duration_s=20.0,
            user=((0.0, 3.6), (4.6, 8.0)),
            agent=tuple((start + jitter, start + 3.0 + jitter) for start in starts),
        ),
        response_from_s=8.0,
        spoken=SENTENCES[seed % 4],
        written=SENTENCES[seed % 4],
        pad_share=0.6 + jitter,
    )


def not_due(seed):
    """The user talks throughout; the model says a short word."""
    jitter = float(np.random.default_rng(seed).uniform(-0.05, 0.05))
    return RolloutView(
        dialogue=Dialogue(
            duration_s=10.0, user=((0.0, 10.0),), agent=((4.0 + jitter, 4.5 + jitter),)
        ),
        spoken="right",
        written="right",
        pad_share=0.9 + jitter,
    )


def epoch(seed, change_due=lambda view: view, change_not_due=lambda view: view):
    return [change_due(due(seed + n)) for n in range(32)] + [
        change_not_due(not_due(seed + n)) for n in range(32)
    ]


def check(monitors, views):
    """As if every rollout were a group."""
    return monitors.check(statistics_table([[view] for view in views]))


def with_agent(*agent):
    def change(view):
        return dataclasses.replace(view, dialogue=dataclasses.replace(view.dialogue, agent=agent))

    return change


def with_(**values):
    return lambda view: dataclasses.replace(view, **values)


# name of the monitor: (change of the rollouts with a response due, of those without)
HACKS = {
    # One run where there were three.
    "silence": (with_agent((8.3, 11.3)), None),
    # The same time of speech in one piece.
    "run_length": (with_agent((8.3, 17.3)), None),
    "repetition": (with_(spoken="yes it is yes it is yes it is", written="yes it is " * 3), None),
    "drift": (with_(spoken="mumble mumbled mumbling on and on the way"), None),
    "padding": (with_(pad_share=0.3), None),
    # The same runs, two of them while the user speaks.
    "overlap": (with_agent((0.5, 3.5), (4.8, 7.8), (9.0, 12.0)), None),
    # As long as the short words together, in one run of 1.5 s in every third rollout.
    "undue": (None, None),
    # All that is said is said in the user's pause and before.
    "empty": (None, None),
}


def changed(name, seed=100):
    change_due, change_not_due = (change or (lambda view: view) for change in HACKS[name])
    views = epoch(seed, change_due, change_not_due)
    if name == "undue":
        longer, none = with_agent((4.0, 5.2)), with_agent((4.0, 4.15))
        views[32:] = [(longer if n % 3 == 0 else none)(view) for n, view in enumerate(views[32:])]
    if name == "empty":  # runs of the same length, none of them after the user's turn
        early = with_agent((-2.0, 0.0), (3.6, 4.6))
        views[:9] = [early(view) for view in views[:9]]
    return views


@pytest.mark.parametrize("name", HACKS)
def test_each_monitor_sees_its_hack_and_no_other_does(name):
    monitors = Monitors()
    assert check(monitors, epoch(0))[1] == []
    assert check(monitors, epoch(50))[1] == []
    _, findings = check(monitors, changed(name))
    assert [finding.statistic for finding in findings] == [name]
    expected = "stop" if name in ("repetition", "empty") else "alert"
    assert findings[0].level == expected
    assert str(findings[0]).startswith(f"{expected}: {name} is ")


def test_every_monitor_has_a_hack():
    assert set(HACKS) == set(THRESHOLDS)


def test_silence_and_padding_are_watched_in_both_directions():
    monitors = Monitors()
    check(monitors, epoch(0))
    more = with_agent(*((float(t), float(t) + 2.0) for t in range(0, 20, 2)))
    found = check(monitors, epoch(1, more, lambda view: view))[1]
    assert "silence" in {finding.statistic for finding in found}
    found = check(monitors, epoch(1, with_(pad_share=0.95)))[1]
    assert [finding.statistic for finding in found] == ["padding"]


def test_noise_is_not_worth_a_word():
    """A change of the size that counts, but within the scatter of few rollouts."""
    monitors = Monitors({"padding": Threshold()})
    check(monitors, [with_(pad_share=share)(due(0)) for share in (0.2, 0.8)])
    assert check(monitors, [with_(pad_share=share)(due(0)) for share in (0.45, 0.95)])[1] == []
    check(monitors, [with_(pad_share=share)(due(0)) for share in (0.5, 0.5)])
    certain = Monitors({"padding": Threshold()})
    check(certain, [with_(pad_share=0.5)(due(0))] * 2)
    assert len(check(certain, [with_(pad_share=0.7)(due(0))] * 2)[1]) == 1


def test_a_model_that_was_empty_from_the_start_is_not_stopped_for_it():
    monitors = Monitors()
    for seed in (0, 1):
        assert check(monitors, epoch(seed, with_agent()))[1] == []
    monitors = Monitors()
    check(monitors, epoch(0))
    found = check(monitors, epoch(1, with_agent()))[1]
    assert Finding("empty", "stop", 1.0, 0.0) in found


def test_a_statistic_that_comes_later_has_its_own_first_epoch():
    monitors = Monitors()
    unheard = with_(spoken=None)
    check(monitors, epoch(0, unheard, unheard))
    assert "drift" not in monitors.first
    check(monitors, epoch(1))
    assert monitors.first["drift"].value == 0.0
    assert [f.statistic for f in check(monitors, changed("drift"))[1]] == ["drift"]


def test_state_survives_a_checkpoint():
    monitors, again = Monitors(), Monitors()
    check(monitors, epoch(0))
    again.restore(json.loads(json.dumps(monitors.state())))
    assert again.first == monitors.first
    assert check(again, changed("overlap")) == check(monitors, changed("overlap"))


def test_means_count_only_groups_that_say_something():
    table = statistics_table([[due(0), with_agent()(due(1))], [not_due(0)], [due(2)]])
    means = epoch_means(table)
    assert (means["undue"].count, means["empty"].count) == (1, 2)
    assert means["empty"] == Mean(0.25, float(0.25 / np.sqrt(2)), 2)
    assert means["run_length"].count == 3


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="no statistic 'loudness', expected one of silence"):
        Monitors({"loudness": Threshold()})
    with pytest.raises(ValueError, match=r"Threshold.sigmas is -1"):
        Threshold(sigmas=-1)
