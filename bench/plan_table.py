"""A planned pod as a table for people."""

from typing import Any

from rich.table import Table

__all__ = ["table"]

GB = 10**9
TFLOP = 10**12


def table(row: dict[str, Any]) -> Table:
    """One pod: parts that lie on a device, then each program."""
    title = f"{row['preset']} on {row['topology']}, {row['mapping']}, T = {row['frames']}"
    if row["lora"] is not None:
        title += f", LoRA {row['lora']}"
    made = Table("a device", "GB", "", title=title)
    notes = {
        "decoding weights": "while rollouts are made",
        "keys and values": "while rollouts are made",
        "activations": "within an update",
    }
    for part, size in row["resident_bytes"].items():
        made.add_row(part, _gb(size), notes.get(part, "always"))
    for name, program in row["programs"].items():
        made.add_section()
        verdict = "" if program["fits"] else ", too much"
        made.add_row(f"{name}: with all that lies there", _gb(program["peak_bytes"]), verdict[2:])
        if program["how"] == "refused":
            made.add_row("the program", _gb(program["bytes"]), "refused by the compiler")
            continue
        temporary = f"{_gb(program['temporary_bytes'])} of it temporary"
        made.add_row("the program", _gb(program["bytes"]), f"{program['how']}, {temporary}")
        made.add_row("moved through HBM", _gb(program["hbm_bytes"]), "")
        kinds = sorted(program.get("collectives", {}).items())
        made.add_row(
            "sent", _gb(program["sent_bytes"]), ", ".join(f"{n} {kind}" for kind, n in kinds)
        )
        bound = max(program["bound_ms"], key=program["bound_ms"].__getitem__)
        made.add_row("operations", f"{program['flops'] / TFLOP:.1f}", "TFLOP")
        made.add_row("takes at least", f"{program['bound_ms'][bound]:.1f}", f"ms, by {bound}")
    made.add_section()
    if row["epoch_bound_s"] is not None:
        made.add_row("an epoch takes at least", f"{row['epoch_bound_s']:.1f}", "s")
    made.add_row("memory", _gb(row["memory_bytes"]), "usable")
    return made


def _gb(size: float) -> str:
    return f"{size / GB:.2f}"
