"""What a rollout is like, apart from its reward: the numbers in which reward hacking shows.

Each is a function of one `RolloutView`, None where the rollout does not say (no transcript, no
response due). They are averaged over an epoch by `rewards.monitors`.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rewards.dialogue import Dialogue
from rewards.intervals import clip, length_s, longer, merge, runs, total_s

MAX_BACKCHANNEL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class RolloutView:
    """One rollout on one segment, as far as the monitors look at it.

    Attributes:
        dialogue: the speech of both, on the segment's clock.
        response_from_s: end of the turn that the model is to answer; None where no response is due
            (pauses, backchannels).
        spoken: words that a recognizer heard; None if nobody listened.
        written: words of the model's text stream; None if it was not kept.
        pad_share: share of padding among the text tokens of the segment.
    """

    dialogue: Dialogue
    response_from_s: float | None = None
    spoken: str | None = None
    written: str | None = None
    pad_share: float | None = None


def silence(view: RolloutView) -> float | None:
    """Share of the segment in which the model does not speak."""
    return 1.0 - total_s(_speech(view)) / view.dialogue.duration_s


def run_length(view: RolloutView) -> float | None:
    """Mean length of the model's runs in seconds; None if it does not speak."""
    found = runs(_speech(view))
    return sum(map(length_s, found)) / len(found) if found else None


def repetition(view: RolloutView) -> float | None:
    """Share of the spoken word triples that are repetitions (seq-rep-3); None under 3 words."""
    if view.spoken is None:
        return None
    said = words(view.spoken)
    triples = list(zip(said, said[1:], said[2:], strict=False))
    return 1.0 - len(set(triples)) / len(triples) if triples else None


def drift(view: RolloutView) -> float | None:
    """Word error rate of what was spoken against what was written; above 1 counts as 1."""
    if view.spoken is None or view.written is None:
        return None
    written = words(view.written)
    if not written:
        return None
    return min(1.0, edit_distance(words(view.spoken), written) / len(written))


def padding(view: RolloutView) -> float | None:
    """Share of padding among the text tokens."""
    return view.pad_share


def overlap(view: RolloutView) -> float | None:
    """Share of the user's speech during which the model speaks; None if the user is silent."""
    user = merge(clip(view.dialogue.user, 0.0, view.dialogue.duration_s))
    together = sum(total_s(clip(_speech(view), *interval)) for interval in user)
    return together / total_s(user) if user else None


def undue(view: RolloutView) -> float | None:
    """1 if the model takes the turn where no response is due; None where one is."""
    if view.response_from_s is not None:
        return None
    return float(any(longer(run, MAX_BACKCHANNEL_S) for run in runs(_speech(view))))


def empty(view: RolloutView) -> float | None:
    """1 if a response is due and nothing is said; None where none is due."""
    if view.response_from_s is None:
        return None
    return float(not clip(_speech(view), view.response_from_s, view.dialogue.duration_s))


STATISTICS: dict[str, Callable[[RolloutView], float | None]] = {
    "silence": silence,
    "run_length": run_length,
    "repetition": repetition,
    "drift": drift,
    "padding": padding,
    "overlap": overlap,
    "undue": undue,
    "empty": empty,
}
"""Name -> the statistic."""


def most_common_share(views: Sequence[RolloutView]) -> float | None:
    """Share of the most frequent of all short replies (up to 3 words); None under 4 of them."""
    short = [" ".join(said) for v in views if v.spoken and len(said := words(v.spoken)) <= 3]
    return Counter(short).most_common(1)[0][1] / len(short) if len(short) >= 4 else None


def words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Least number of words to insert, delete or replace."""
    row = list(range(len(other) + 1))
    for i, word in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, target in enumerate(other, 1):
            diagonal, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, diagonal + (word != target)),
            )
    return row[-1]


def _speech(view: RolloutView) -> list[tuple[float, float]]:
    return clip(view.dialogue.agent, 0.0, view.dialogue.duration_s)
