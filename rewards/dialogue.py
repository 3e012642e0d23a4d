"""`Dialogue`: what the reward rules see of one conversation segment."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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

    Raises:
        ValueError: a time is not finite, an interval does not end after its start, or a label is
            outside the segment.
    """

    duration_s: float
    agent: tuple[Interval, ...] = ()
    user: tuple[Interval, ...] = ()
    user_turn_end_s: float | None = None
    interruption: Interval | None = None
    backchannels: tuple[Interval, ...] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise ValueError(f"duration_s is {self.duration_s}, expected a positive number")
        for name in ("agent", "user", "backchannels"):
            channel = getattr(self, name)
            if channel is not None:
                for interval in channel:
                    _check_interval(name, interval)
                object.__setattr__(self, name, tuple(sorted(channel)))
        if self.interruption is not None:
            _check_interval("interruption", self.interruption)
        for name, time in (
            ("user_turn_end_s", self.user_turn_end_s),
            ("interruption start", self.interruption and self.interruption[0]),
            ("interruption end", self.interruption and self.interruption[1]),
        ):
            if time is not None and not -TOLERANCE_S <= time <= self.duration_s + TOLERANCE_S:
                raise ValueError(
                    f"{name} is {time} s, expected a time in the segment, 0 to {self.duration_s} s"
                )

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
        return {name: value for name, value in asdict(self).items() if value is not None}


def _check_interval(name: str, interval: Interval) -> None:
    start, end = interval
    if not (math.isfinite(start) and math.isfinite(end) and start < end):
        raise ValueError(f"{name} has interval ({start}, {end}), expected finite start < end")


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


_READERS: dict[str, Callable[[str, object], Any]] = {
    "duration_s": _read_seconds,
    "agent": _read_intervals,
    "user": _read_intervals,
    "user_turn_end_s": _read_seconds,
    "interruption": _read_interval,
    "backchannels": _read_intervals,
}
