"""Worked examples of what stands around the rewards: advantages, and the cut of segments.

The format is that of `rewards.examples`.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from grpo.advantages import group_advantages
from grpo.segment_rules import find_segments
from grpo.segments import AXES, SegmentConfig
from rewards.examples import Check, Kind, options, same_number

ROUNDED_DIGITS = 4
"""Expected advantages are written with this many decimals, or with more when more are given."""

_ADVANTAGE_FIELDS = {
    "eps": "eps",
    "std": "ddof",
    "ddof": "ddof",
    "min_std": "min_std",
    "weights": "weights",
    "estimator": "estimator",
}
_SEGMENT_FIELDS = {
    "max_gap": "max_gap_s",
    "turn_gap": "turn_gap_s",
    "turn_gap_min": "turn_gap_min_s",
    "max_bc": "max_backchannel_s",
    "min_pause": "min_pause_s",
    "ignore_backchannels": "ignore_backchannels",
    "bc_required": "backchannel_required",
    "bc_inside": "backchannel_inside",
}
_AXES = {"pause": "pause", "turn": "turn", "bc": "backchannel", "int": "interruption"}


def _advantages(case: Mapping[str, Any], params: Mapping[str, Any]) -> Check:
    rows = [[math.nan if r is None else r for r in row] for row in case["components"]]
    values = options(params, _ADVANTAGE_FIELDS)
    if isinstance(values.get("ddof"), str):
        found = re.search(r"ddof (\d)", values["ddof"])
        if found is None:
            raise ValueError(
                f"std is {values['ddof']!r}, expected a text with 'ddof 0' or 'ddof 1'"
            )
        values["ddof"] = int(found[1])
    for name in ("min_std", "weights"):
        if isinstance(values.get(name), int | float):
            values[name] = (values[name],) * len(rows)
    got = group_advantages(np.array(rows, np.float64), **values).tolist()
    expected = case["expected"]
    agrees = len(got) == len(expected) and all(map(_same_rounded, got, expected))
    return Check(expected, got, agrees)


def _same_rounded(got: float, expected: float | None) -> bool:
    """Equal to 1e-9, or to the last decimal that the expected value is written with."""
    if same_number(got, expected) or not expected:
        return same_number(got, expected)
    decimals = len(repr(float(expected)).partition(".")[2])
    return round(got, max(decimals, ROUNDED_DIGITS)) == expected


def _segment_extraction(case: Mapping[str, Any], params: Mapping[str, Any]) -> Check:
    params = dict(params)
    taus = options(params.pop("tau", {}), {short: f"tau_{axis}_s" for short, axis in _AXES.items()})
    config = SegmentConfig(**taus, **options(params, _SEGMENT_FIELDS))
    user, agent = (
        [(float(start), float(end)) for start, end in case[channel]]
        for channel in ("x_ipus", "y_ipus")
    )
    found = [
        segment
        for axis in AXES
        for segment in find_segments(
            user, agent, axis, conversation=case["name"], x_channel=0, config=config
        )[0]
    ]
    short = {axis: name for name, axis in _AXES.items()}
    got = [
        {"axis": short[s.axis], "start": s.start_s, "end": s.end_s, **_labels(s.labels)}
        for s in found
    ]
    expected = case["expected"]
    agrees = len(got) == len(expected)
    left = list(got)
    for wanted in expected:  # each expected segment takes one of those found, in any order
        match = next((s for s in left if _same_segment(s, wanted)), None)
        agrees = agrees and match is not None
        if match is not None:
            left.remove(match)
    return Check(expected, got, agrees)


def _labels(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Labels under the names of the file."""
    renamed = {}
    for name, value in labels.items():
        if name == "interruption":
            renamed["int_start"], renamed["int_end"] = value
        else:
            renamed[{"user_turn_end_s": "t_end", "backchannels": "gt"}.get(name, name)] = value
    return renamed


def _same_segment(got: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    wanted = {
        name.replace("interrupt_", "int_").replace("interruption_", "int_"): value
        for name, value in wanted.items()
    }
    return all(name in got and _same(got[name], value) for name, value in wanted.items())


def _same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return (
            isinstance(got, list | tuple)
            and len(got) == len(wanted)
            and all(map(_same, got, wanted))
        )
    return same_number(got, wanted) if isinstance(wanted, int | float) else got == wanted


KINDS: dict[str, Kind] = {
    "advantages": _advantages,
    "segment_extraction": _segment_extraction,
}
"""Kind -> how a case of it is computed and compared."""
