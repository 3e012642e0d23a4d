"""Backchanneling: short signs of listening, where the real listener gave them."""

from dataclasses import dataclass
from typing import Literal

from rewards.checks import require_at_least_0, require_one_of
from rewards.dialogue import Dialogue
from rewards.intervals import RUN_GAP_S, TOLERANCE_S, Interval, clip, longer, runs
from rewards.outcome import Outcome, missing
from rewards.registry import register


@dataclass(frozen=True, kw_only=True)
class BackchannelConfig:
    """What is a backchannel, and when it matches one of the real listener.

    Attributes:
        tolerance_s: largest distance of two that match.
        max_backchannel_s: longer speech takes the turn.
        run_gap_s: longest gap inside a run.
        match: what the distance is between: "onset", the two onsets; "interval", the nearest
            ends of the two intervals, 0 where they overlap.
        one_to_one: each real backchannel matches one of the model's; otherwise any number of
            them, so that saying "mhm" all the time has full precision.
        takeover_penalty: taken off for every takeover: without it, silence and a takeover are
            both worth 0.
    """

    tolerance_s: float = 1.0
    max_backchannel_s: float = 1.0
    run_gap_s: float = RUN_GAP_S
    match: Literal["onset", "interval"] = "onset"
    one_to_one: bool = True
    takeover_penalty: float = 0.0

    def __post_init__(self) -> None:
        require_at_least_0(
            self, ("tolerance_s", "max_backchannel_s", "run_gap_s", "takeover_penalty")
        )
        require_one_of(self, "match", ("onset", "interval"))


_DEFAULTS = BackchannelConfig()


@register("backchanneling", axes=("backchannel",), config=BackchannelConfig)
def backchanneling(dialogue: Dialogue, config: BackchannelConfig = _DEFAULTS) -> Outcome:
    """F1 of the model's backchannels against the real listener's.

    R_bc of arXiv 2606.11167. The model's are its runs of at most 1 s that start in the segment; a
    longer run is a takeover, a false positive. Of speech carried over from the context only a rest
    of more than 1 s counts, as a takeover. Nobody says anything: 1. Missing without the label
    `backchannels`.

    Returns:
        Facts: rule "nobody speaks", "silent", "takeover" or "backchannels"; hits, false_alarms
        (takeovers among them), missed and takeovers, which are counts.
    """
    if dialogue.backchannels is None:
        return missing("no label backchannels")
    said, takeovers = [], 0
    for run in runs(dialogue.agent, config.run_gap_s):
        for inside in clip([run], 0.0, dialogue.duration_s):
            if longer(inside, config.max_backchannel_s):
                takeovers += 1
            elif run[0] >= -TOLERANCE_S:
                said.append(run)
    expected = list(dialogue.backchannels)
    hits, found = _matches(said, expected, config)
    false_alarms, missed = len(said) - hits + takeovers, len(expected) - found
    wrong = false_alarms + missed
    f1 = 2 * hits / (2 * hits + wrong) if hits + wrong else 1.0
    spoke = "takeover" if takeovers else "backchannels" if said else "silent"
    facts = {
        "rule": spoke if hits + wrong else "nobody speaks",
        "hits": hits,
        "false_alarms": false_alarms,
        "missed": missed,
        "takeovers": takeovers,
    }
    return Outcome(f1 - config.takeover_penalty * takeovers, facts)


def _matches(
    said: list[Interval], expected: list[Interval], config: BackchannelConfig
) -> tuple[int, int]:
    """Number of the said with a match, and of the expected with a match."""

    def fits(one: Interval, other: Interval) -> bool:
        if config.match == "onset":
            distance_s = abs(one[0] - other[0])
        else:
            distance_s = max(one[0], other[0]) - min(one[1], other[1])
        return distance_s <= config.tolerance_s + TOLERANCE_S

    if not config.one_to_one:
        hits = sum(any(fits(run, other) for other in expected) for run in said)
        found = sum(any(fits(run, other) for run in said) for other in expected)
        return hits, found
    # Maximum matching: each of the said takes a free one, or one whose owner can move on.
    owner: dict[int, int] = {}

    def place(run: int, tried: set[int]) -> bool:
        for other in range(len(expected)):
            if other not in tried and fits(said[run], expected[other]):
                tried.add(other)
                if other not in owner or place(owner[other], tried):
                    owner[other] = run
                    return True
        return False

    hits = sum(place(run, set()) for run in range(len(said)))
    return hits, hits
