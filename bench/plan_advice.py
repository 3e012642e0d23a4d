"""What to change where a pod does not hold a run: each change weighed by arithmetic.

A changed run needs what the planned one needs, less the difference of the parts that lie on a
device. Temporaries are taken to stay, though most changes shrink them too.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.plan_programs import Plan, arguments, beside, resident_bytes
from bench.topology import DEVICES, NAMES, Topology, describe

if TYPE_CHECKING:
    from bench.plan import PlanOptions

__all__ = ["advice"]

GB = 10**9


def advice(options: "PlanOptions", topology: Topology, row: dict[str, Any]) -> str:
    """One paragraph: fits, with what margin; or not, and for each program too large what helps."""
    if row["fits"]:
        return f"fits, {row['margin_bytes'] / GB:.1f} GB to spare on each device"
    memory = row["memory_bytes"]
    before = _held(options.plan(topology), row["resident_bytes"])
    changes = [
        (label, _held(plan, resident_bytes(plan))) for label, plan in _changes(options, topology)
    ]
    lines = [f"does not fit, {-row['margin_bytes'] / GB:.1f} GB too much on each device"]
    for name, program in row["programs"].items():
        if program["fits"]:
            continue
        needed = program["peak_bytes"]
        with_change = {label: needed - before[name] + held[name] for label, held in changes}
        enough = [
            f"{label} ({peak / GB:.1f} GB)" for label, peak in with_change.items() if peak <= memory
        ]
        if not enough:
            kinds = [kind for kind, device in DEVICES.items() if device.memory >= needed]
            enough = [f"devices of {needed / GB:.0f} GB ({', '.join(kinds) or 'none known'})"]
        lines.append(f"{name} needs {needed / GB:.1f} GB; what fits: {', '.join(enough)}")
    return "\n".join(lines)


def _held(plan: Plan, resident: dict[str, int]) -> dict[str, int]:
    """Bytes of all parts that lie on a device during each program."""
    made = {"rollout": resident["keys and values"], "sync": resident["decoding weights"]}
    idle = beside(plan, resident)
    return {
        name: idle[name] + sum(resident[part] for part in taken) + made.get(name, 0)
        for name, taken in arguments(plan).items()
    }


def _changes(options: "PlanOptions", topology: Topology) -> Iterator[tuple[str, Plan]]:
    """Runs like this one with one thing changed."""
    if options.moments == "float32":
        yield "--moments bfloat16", replace(options, moments="bfloat16").plan(topology)
    larger = _larger(topology)
    if larger is not None:
        yield f"{len(larger.devices)} devices, {larger.name}", options.plan(larger)
    if options.lora is None:
        changed = replace(options, lora=64, mapping="shard_map")
        yield "--lora 64 --mapping shard_map", changed.plan(topology)
    elif options.chosen_mapping == "pmap":
        yield "--mapping shard_map", replace(options, mapping="shard_map").plan(topology)
    if options.num_generations > 2:
        half = options.num_generations // 2
        yield f"--num-generations {half}", replace(options, num_generations=half).plan(topology)


def _larger(topology: Topology) -> Topology | None:
    """The next larger slice of the same kind that has a name."""
    kind = topology.name.partition(":")[0]
    if topology.platform == "figures":
        return replace(topology, devices=(None,) * (2 * len(topology.devices)))
    names = [name for name in NAMES if name.startswith(f"{kind}:")]
    found = (describe(name) for name in names)
    bigger = [other for other in found if len(other.devices) > len(topology.devices)]
    return min(bigger, key=lambda other: len(other.devices), default=None)
