"""Whether a described pod holds a GRPO run, and what an epoch costs there at best.

Compiles the programs of an epoch for devices that are not here (`bench.topology`) and asks the
compiler what they need; where there is no compiler, sums it up (`bench.plan_accounting`). Times are
bounds: bytes over the datasheet's bandwidth, operations over its peak, what is sent over all links;
no device takes less, and none was there to take more.
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

from bench.machine import describe_machine
from bench.plan_accounting import account
from bench.plan_advice import advice
from bench.plan_programs import Plan, beside, flops, lowerings, make_plan, resident_bytes
from bench.plan_table import table
from bench.presets import preset
from bench.topology import Device, Topology, describe, only_figures
from bench.traffic import count
from layers_jax import atomic_path

__all__ = ["PlanOptions", "main", "plan_row"]

Program = Literal["update", "logprobs", "sync", "rollout"]
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Plan a run: does it fit a pod, and what does an epoch cost there at best."""

    topology: tuple[str, ...] = ()
    """Pods to compile for: `v5e:4x8`, `v6e:2x4`, `v5p:2x2x2`, ..., or GPUs, `h100:8`; v5e:4x8 if
    nothing is named here or by --device."""
    device: tuple[str, ...] = ()
    """Devices to plan for by arithmetic alone: `gpu:h100`, `tpu:v6e`, ..."""
    devices: int = 8
    """How many of each --device."""
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
    programs: tuple[Program, ...] = ("update", "logprobs", "sync", "rollout")
    """Programs to compile; what is left out is not planned."""
    json: Path | None = None
    """Write the figures here too."""

    @property
    def chosen_mapping(self) -> Literal["pmap", "shard_map"]:
        """What auto stands for."""
        if self.mapping != "auto":
            return self.mapping
        return "shard_map" if self.lora is None else "pmap"

    def topologies(self) -> list[Topology]:
        """Where to plan for."""
        named = self.topology or (() if self.device else ("v5e:4x8",))
        figures = [only_figures(name, self.devices) for name in self.device]
        return [*map(describe, named), *figures]

    def plan(self, topology: Topology) -> Plan:
        """The run on one pod."""
        return make_plan(
            topology,
            preset(self.preset).lm,
            mapping=self.chosen_mapping,
            lora=self.lora,
            moments=self.moments,
            frames=self.frames,
            rollout_frames=self.rollout_frames,
            num_generations=self.num_generations,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        0 if every pod holds the run, 1 if one does not.
    """
    options = tyro.cli(PlanOptions, args=argv, prog="moshi-jax bench plan")
    console = Console()
    rows = []
    for topology in options.topologies():
        row = plan_row(options, topology)
        rows.append(row)
        console.print(table(row))
        console.print(row["advice"], highlight=False)
    if options.json is not None:
        report = {"machine": describe_machine("libtpu"), "rows": rows}
        with atomic_path(options.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row["fits"] for row in rows) else 1


def plan_row(options: PlanOptions, topology: Topology) -> dict[str, Any]:
    """Everything about one pod, as JSON."""
    plan = options.plan(topology)
    resident = resident_bytes(plan)
    programs: dict[str, dict[str, Any]]
    if topology.platform == "figures":
        accounted = account(plan, resident)
        programs = {name: accounted[name] for name in options.programs}
    else:
        trace = lowerings(plan)
        programs = {name: _compiled(topology, plan, name, trace[name]) for name in options.programs}
    idle = beside(plan, resident)
    memory = topology.device.memory
    for name, program in programs.items():
        program["peak_bytes"] = program["bytes"] + idle[name]
        program["fits"] = program["peak_bytes"] <= memory
        if program["how"] != "refused":
            program["bound_ms"] = _bound_ms(topology.device, program)
    peak = max(program["peak_bytes"] for program in programs.values())
    row = {
        "topology": topology.name,
        "preset": options.preset,
        "mapping": options.chosen_mapping,
        "lora": options.lora,
        "moments": options.moments,
        "devices": plan.mesh.size,
        "frames": options.frames,
        "rollout_frames": options.rollout_frames,
        "num_generations": options.num_generations,
        "memory_bytes": memory,
        "resident_bytes": resident,
        "programs": programs,
        "peak_bytes": peak,
        "margin_bytes": memory - peak,
        "fits": all(program["fits"] for program in programs.values()),
        "epoch_bound_s": _epoch_bound_s(plan, programs),
    }
    return {**row, "advice": advice(options, topology, row)}


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
        used = int(float(needed[1]) * UNITS[needed[2]])
        return {"how": "refused", "bytes": used, "compile_s": time.perf_counter() - started}
    memory = compiled.memory_analysis()
    # A rollout's loop ends with its group: here, with the last frame.
    traffic = count(compiled.as_text(), trips=plan.rollout_frames + plan.lm.config.max_delay)
    arguments = memory.argument_size_in_bytes
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "how": "compiled",
        "bytes": arguments + fresh + memory.temp_size_in_bytes,
        "argument_bytes": arguments,
        "temporary_bytes": memory.temp_size_in_bytes,
        "hbm_bytes": traffic.total,
        "collective_bytes": traffic.payload(),
        "sent_bytes": traffic.sent(),
        "collectives": dict(traffic.collectives()),
        "flops": flops(plan)[name],
        "compile_s": time.perf_counter() - started,
    }


def _bound_ms(device: Device, program: dict[str, Any]) -> dict[str, float]:
    return {
        "hbm": 1e3 * program["hbm_bytes"] / device.bandwidth,
        "links": 1e3 * program["sent_bytes"] / device.link,
        "flops": 1e3 * program["flops"] / device.bf16,
    }


def _epoch_bound_s(plan: Plan, programs: dict[str, dict[str, Any]]) -> float | None:
    """One group a device, its old log-probs, one copy of the weights, G updates."""
    times = {"update": plan.config.num_generations, "logprobs": 1, "sync": 1, "rollout": 1}
    if set(programs) != set(times) or any("bound_ms" not in p for p in programs.values()):
        return None
    return sum(times[n] * max(p["bound_ms"].values()) / 1e3 for n, p in programs.items())
