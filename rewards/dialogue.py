"""`Dialogue`: what the reward rules see of one conversation segment."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from rewards.intervals import TOLERANCE_S, Interval


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """The speech of both channels on one clock, and the labels of the segment.

    Times are seconds from the start of the segment. IPUs come from a voice activity detector that
    heard the whole audio, context included: they may begin below 0 (speech carried over) and end
    after `duration_s`. The channels are kept sorted. A label is None where the segment has none;
    the rules that need it are then missing.

    Attributes:
        duration_s: length of the segment.
        agent: IPUs of the speech the model generated.
        user: IPUs of the speaker the model listens to.
        user_turn_end_s: end of the user's turn ("turn" axis).
        interruption: start and end of the user's turn that barges in ("interruption" axis).
        backchannels: what the real listener said, each up to 1 s; () = nothing ("backchannel").
        labels: those of further axes by name: a time in seconds or intervals.

    Raises:
        ValueError: a time is not finite, an interval does not end after its start, two intervals
            of a channel overlap, or a label is outside the segment.
    """

    duration_s: float
    agent: tuple[Interval, ...] = ()
    user: tuple[Interval, ...] = ()
    user_turn_end_s: float | None = None
    interruption: Interval | None = None
    backchannels: tuple[Interval, ...] | None = None
    labels: Mapping[str, float | tuple[Interval, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise ValueError(f"duration_s is {self.duration_s}, expected a positive number")
        for name in ("agent", "user", "backchannels"):
            channel = getattr(self, name)
            if channel is not None:
                for interval in channel:
                    _check_interval(name, interval)
                channel = tuple(sorted(channel))
                _check_disjoint(name, channel)
                object.__setattr__(self, name, channel)
        if self.interruption is not None:
            _check_interval("interruption", self.interruption)
        for name, time in (
            ("user_turn_end_s", self.user_turn_end_s),
            ("interruption start", self.interruption and self.interruption[0]),
            ("interruption end", self.interruption and self.interruption[1]),
            *(("a time of backchannels", time) for time in _times(self.backchannels or ())),
            *((f"label {name}", t) for name, label in self.labels.items() for t in _times(label)),
        ):
            if time is not None and not -TOLERANCE_S <= time <= self.duration_s + TOLERANCE_S:
                raise ValueError(
                    f"{name} is {time} s, expected a time in the segment, 0 to {self.duration_s} s"
                )

    @classmethod
    def of_segment(
        cls,
        *,
        duration_s: float,
        agent: tuple[Interval, ...],
        user: tuple[Interval, ...] = (),
        labels: Mapping[str, Any],
    ) -> "Dialogue":
        """Sort the labels of a segment, whatever its axis, into their fields."""
        own = {name: value for name, value in labels.items() if name in _LABELS}
        further = {name: value for name, value in labels.items() if name not in _LABELS}
        return cls(duration_s=duration_s, agent=agent, user=user, labels=further, **own)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Dialogue":
        """Read the layout of `to_dict`, as parsed from JSON.

        Raises:
            ValueError: an unknown or missing field, or a value that is not seconds or intervals.
        """
        if unknown := [name for name in values if name not in _READERS]:
            raise ValueError(f"unknown field {unknown[0]!r}, expected {', '.join(_READERS)}")
        if "duration_s" not in values:
            raise ValueError("field 'duration_s' is missing")
        return cls(
            **{
                name: _READERS[name](name, value)
                for name, value in values.items()
                if value is not None
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; labels that the segment does not have are left out."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return values if self.labels else {k: v for k, v in values.items() if k != "labels"}


def _check_interval(name: str, interval: Interval) -> None:
    start, end = interval
    if not (math.isfinite(start) and math.isfinite(end) and start < end):
        raise ValueError(f"{name} has interval ({start}, {end}), expected finite start < end")


def _check_disjoint(name: str, channel: tuple[Interval, ...]) -> None:
    for one, other in pairwise(channel):
        if other[0] < one[1] - TOLERANCE_S:
            raise ValueError(
                f"{name} has overlapping intervals {one} and {other}, expected disjoint ones"
            )


def _times(label: float | tuple[Interval, ...]) -> tuple[float, ...]:
    if isinstance(label, int | float):
        return (label,)
    return tuple(time for interval in label for time in interval)


def _read_seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} has {value!r}, expected a number of seconds")
    return float(value)


def _read_interval(name: str, value: object) -> Interval:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError(f"{name} has {value!r}, expected an interval [start, end]")
    return _read_seconds(name, value[0]), _read_seconds(name, value[1])


def _read_intervals(name: str, value: object) -> tuple[Interval, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{name} is {value!r}, expected a list of intervals [start, end]")
    return tuple(_read_interval(name, interval) for interval in value)


def _read_labels(name: str, value: object) -> dict[str, float | tuple[Interval, ...]]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {value!r}, expected an object: label -> seconds or intervals")
    return {
        str(label): _read_seconds(str(label), times)
        if isinstance(times, int | float)
        else _read_intervals(str(label), times)
        for label, times in value.items()
    }


_READERS: dict[str, Callable[[str, object], Any]] = {
    "duration_s": _read_seconds,
    "agent": _read_intervals,
    "user": _read_intervals,
    "user_turn_end_s": _read_seconds,
    "interruption": _read_interval,
    "backchannels": _read_intervals,
    "labels": _read_labels,
}
_LABELS = ("user_turn_end_s", "interruption", "backchannels")
