"""Backchanneling: short signs of listening, where the real listener gave them."""

from dataclasses import dataclass

from rewards.dialogue import Dialogue
from rewards.intervals import RUN_GAP_S, TOLERANCE_S, clip, longer, runs
from rewards.registry import register


@dataclass(frozen=True, kw_only=True)
class BackchannelConfig:
    """What is a backchannel, and when it matches one of the real listener.

    Attributes:
        tolerance_s: largest distance of two matching onsets.
        max_backchannel_s: longer speech takes the turn.
        run_gap_s: longest gap inside a run.
        one_to_one: each real backchannel matches one of the model's; otherwise any number of
            them, so that saying "mhm" all the time has full precision.
        takeover_penalty: taken off for every takeover: without it, silence and a takeover are
            both worth 0.
    """

    tolerance_s: float = 1.0
    max_backchannel_s: float = 1.0
    run_gap_s: float = RUN_GAP_S
    one_to_one: bool = True
    takeover_penalty: float = 0.0


_DEFAULTS = BackchannelConfig()


@register("backchanneling", axes=("backchannel",), config=BackchannelConfig)
def backchanneling(dialogue: Dialogue, config: BackchannelConfig = _DEFAULTS) -> float | None:
    """F1 of the model's backchannels against the real listener's.

    R_bc of arXiv 2606.11167. The model's are its runs of at most 1 s that start in the segment; a
    longer run is a takeover, a false positive. Of speech carried over from the context only a rest
    of more than 1 s counts, as a takeover. Nobody says anything: 1. Missing without the label
    `backchannels`.
    """
    if dialogue.backchannels is None:
        return None
    onsets, takeovers = [], 0
    for run in runs(dialogue.agent, config.run_gap_s):
        for inside in clip([run], 0.0, dialogue.duration_s):
            if longer(inside, config.max_backchannel_s):
                takeovers += 1
            elif run[0] >= -TOLERANCE_S:
                onsets.append(run[0])
    expected = [start for start, _ in dialogue.backchannels]
    hits, found = _matches(onsets, expected, config)
    false = len(onsets) - hits + takeovers + len(expected) - found
    f1 = 2 * hits / (2 * hits + false) if hits + false else 1.0
    return f1 - config.takeover_penalty * takeovers


def _matches(
    onsets: list[float], expected: list[float], config: BackchannelConfig
) -> tuple[int, int]:
    """Number of onsets with a match, and of expected ones with a match; both lists sorted."""
    reach = config.tolerance_s + TOLERANCE_S
    if not config.one_to_one:
        hits = sum(any(abs(onset - other) <= reach for other in expected) for onset in onsets)
        found = sum(any(abs(onset - other) <= reach for onset in onsets) for other in expected)
        return hits, found
    # On a line, with one tolerance for all, pairing the earliest with the earliest is maximum.
    hits = at = 0
    for other in expected:
        while at < len(onsets) and onsets[at] < other - reach:
            at += 1
        if at < len(onsets) and onsets[at] <= other + reach:
            hits, at = hits + 1, at + 1
    return hits, hits
