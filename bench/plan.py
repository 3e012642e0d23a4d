"""Whether a described pod holds a GRPO run, and what an epoch costs there at best.

Compiles the update, the rollout and the copy of the weights between them for devices that are not
here (`bench.topology`), and asks the compiler what they need. Times are bounds: bytes over the
datasheet's bandwidth, operations over its peak, collective bytes over its links; no device takes
less, and none was there to take more.
"""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from rich.console import Console
from rich.table import Table

from bench.machine import describe_machine
from bench.plan_programs import Plan, lowerings, make_plan, resident_bytes, update_flops
from bench.presets import preset
from bench.topology import Topology, describe
from bench.traffic import count
from layers_jax import atomic_path

__all__ = ["PlanOptions", "main", "plan_row"]

GB = 10**9
Program = Literal["update", "rollout", "sync"]


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Plan a run: does it fit a pod, and what does an epoch cost there at best."""

    topology: tuple[str, ...] = ("v5e:4x8",)
    """Pods by name, `v5e:4x8`, `v6e:2x4`, `v5p:2x2x2`, ..., or GPUs, `h100:8`."""
    preset: str = "moshi-7b"
    """The model, by a name of `bench.presets`."""
    mapping: Literal["auto", "pmap", "shard_map"] = "auto"
    """As of `moshi-jax train`; auto divides the weights, or with --lora holds the base whole."""
    lora: int | None = None
    """Rank of adapters; none plans full fine-tuning."""
    moments: Literal["float32", "bfloat16"] = "float32"
    """Format of the optimizer's moments."""
    frames: int = 1024
    """Frames of an update: prefix, context and segment, padded."""
    rollout_frames: int = 512
    """Frames of a rollout."""
    num_generations: int = 16
    """Rollouts per group, and updates per epoch."""
    programs: tuple[Program, ...] = ("update", "sync", "rollout")
    """Programs to compile; what is left out is not planned."""
    json: Path | None = None
    """Write the figures here too."""

    @property
    def chosen_mapping(self) -> Literal["pmap", "shard_map"]:
        """What auto stands for."""
        if self.mapping != "auto":
            return self.mapping
        return "shard_map" if self.lora is None else "pmap"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        0 if every pod holds the run, 1 if one does not.
    """
    options = tyro.cli(PlanOptions, args=argv, prog="moshi-jax bench plan")
    rows = [plan_row(options, describe(name)) for name in options.topology]
    console = Console()
    for row in rows:
        console.print(_table(row))
        console.print(row["advice"])
    if options.json is not None:
        report = {"machine": describe_machine("libtpu"), "rows": rows}
        with atomic_path(options.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row["fits"] for row in rows) else 1


def plan_row(options: PlanOptions, topology: Topology) -> dict[str, Any]:
    """Everything about one pod, as JSON."""
    plan = make_plan(
        topology,
        preset(options.preset).lm,
        mapping=options.chosen_mapping,
        lora=options.lora,
        moments=options.moments,
        frames=options.frames,
        rollout_frames=options.rollout_frames,
        num_generations=options.num_generations,
    )
    trace = lowerings(plan)
    programs: dict[str, dict[str, Any]] = {
        name: _compiled(topology, plan, name, trace[name]) for name in options.programs
    }
    resident = resident_bytes(plan)
    # While rollouts are made, the train state waits beside them; an update does without their copy.
    beside = resident["master"] + resident["moments"] + resident["reference"]
    for name, program in programs.items():
        program["peak_bytes"] = program["bytes"] + (beside if name == "rollout" else 0)
        program["fits"] = program["compiled"] and program["peak_bytes"] <= topology.device.memory
    peak = max(program["peak_bytes"] for program in programs.values())
    row = {
        "topology": topology.name,
        "preset": options.preset,
        "mapping": options.chosen_mapping,
        "lora": options.lora,
        "moments": options.moments,
        "devices": plan.mesh.size,
        "frames": options.frames,
        "memory_bytes": topology.device.memory,
        "resident_bytes": resident,
        "programs": programs,
        "peak_bytes": peak,
        "margin_bytes": topology.device.memory - peak,
        "fits": all(program["fits"] for program in programs.values()),
        "epoch_bound_s": _epoch_bound_s(plan, programs),
    }
    return {**row, "advice": _advice(row)}


def _compiled(topology: Topology, plan: Plan, name: str, trace: Any) -> dict[str, Any]:
    """What the compiler and its text say about one program, for one device."""
    started = time.perf_counter()
    lowered = trace()
    try:
        compiled: Any = topology.compile(lowered)
    except jax.errors.JaxRuntimeError as error:
        needed = re.search(r"Used ([\d.]+)([KMG]) of", str(error))
        if "RESOURCE_EXHAUSTED" not in str(error) or needed is None:
            raise
        used = int(float(needed[1]) * {"K": 2**10, "M": 2**20, "G": 2**30}[needed[2]])
        return {"compiled": False, "bytes": used, "compile_s": time.perf_counter() - started}
    memory = compiled.memory_analysis()
    traffic = count(compiled.as_text())
    device = topology.device
    arguments = memory.argument_size_in_bytes
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
    flops = update_flops(plan) if name == "update" else 0.0
    bounds = {
        "hbm": traffic.total / device.bandwidth,
        "links": traffic.sent() / device.link,
        "flops": flops / device.bf16,
    }
    return {
        "compiled": True,
        "bytes": arguments + fresh + memory.temp_size_in_bytes,
        "argument_bytes": arguments,
        "temporary_bytes": memory.temp_size_in_bytes,
        "hbm_bytes": traffic.total,
        "collective_bytes": traffic.payload(),
        "sent_bytes": traffic.sent(),
        "collectives": dict(traffic.collectives()),
        "flops": flops,
        "bound_ms": {part: 1e3 * seconds for part, seconds in bounds.items()},
        "compile_s": time.perf_counter() - started,
    }


def _epoch_bound_s(plan: Plan, programs: dict[str, dict[str, Any]]) -> float | None:
    """Rollouts, one copy of the weights and G updates, each at its tightest bound."""
    times = {"update": plan.config.num_generations, "sync": 1, "rollout": 1}
    if set(programs) != set(times) or not all(p["compiled"] for p in programs.values()):
        return None
    return sum(times[n] * max(p["bound_ms"].values()) / 1e3 for n, p in programs.items())


def _advice(row: dict[str, Any]) -> str:
    """What to change where a run does not fit."""
    if row["fits"]:
        return f"fits, {row['margin_bytes'] / GB:.1f} GB to spare on each device"
    options = []
    failing = [name for name, program in row["programs"].items() if not program["fits"]]
    if row["moments"] == "float32":
        saved = row["resident_bytes"]["moments"] / 2 / GB
        options.append(f"--moments bfloat16 ({saved:.1f} GB less)")
    if row["mapping"] == "shard_map":
        state = sum(row["resident_bytes"][part] for part in ("master", "moments", "reference"))
        options.append(f"twice the devices ({state / 2 / GB:.1f} GB less)")
    else:
        options.append("--mapping shard_map")
    if row["lora"] is None:
        options.append("--lora 64")
    options.append("fewer --frames" if "update" in failing else "fewer --rollout-frames")
    return (
        f"does not fit ({', '.join(failing)}: {-row['margin_bytes'] / GB:.1f} GB too much); "
        f"what helps: {', '.join(options)}"
    )


def _table(row: dict[str, Any]) -> Table:
    title = f"{row['preset']} on {row['topology']}, {row['mapping']}, T = {row['frames']}"
    if row["lora"] is not None:
        title += f", LoRA {row['lora']}"
    table = Table("per device", "GB", "", title=title)
    for part, size in row["resident_bytes"].items():
        table.add_row(part, f"{size / GB:.2f}", "resident")
    for name, program in row["programs"].items():
        if not program["compiled"]:
            table.add_row(name, f"{program['bytes'] / GB:.2f}", "refused by the compiler")
            continue
        temporary = f"of which {program['temporary_bytes'] / GB:.2f} temporary"
        table.add_row(f"{name}: peak", f"{program['peak_bytes'] / GB:.2f}", temporary)
        table.add_row(f"{name}: HBM moved", f"{program['hbm_bytes'] / GB:.2f}", "")
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(program["collectives"].items()))
        table.add_row(f"{name}: collectives", f"{program['collective_bytes'] / GB:.2f}", kinds)
        bound = max(program["bound_ms"], key=program["bound_ms"].__getitem__)
        table.add_row(f"{name}: bound", f"{program['bound_ms'][bound]:.1f} ms", f"by {bound}")
    if row["epoch_bound_s"] is not None:
        table.add_row("epoch: bound", f"{row['epoch_bound_s']:.1f} s", "")
    table.add_row("memory", f"{row['memory_bytes'] / GB:.2f}", "usable")
    return table
