"""What a compiled program is made of, in counts and bytes: the part of a benchmark no load moves.

A program that got worse shows it here before any device is there to time it: a cache that is
copied, a state that is not donated, a call back to the host, a double.
"""

from collections.abc import Mapping

import jax

from bench.hlo import Array, arrays, parse
from bench.traffic import count

__all__ = ["LARGE_COPY", "NEVER_MORE", "summarise"]

LARGE_COPY = 8 * 1024  # bytes; below this a copy is layout work on one token's activations
_WIDE = ("f64", "c128")
_CALLBACK = ("callback", "host_", "SendToHost", "RecvFromHost")

# Of these one more is one too many, whatever the tolerance.
NEVER_MORE = ("f64", "host_transfers", "undonated_bytes", "collectives")


def summarise(compiled: jax.stages.Compiled, donated_bytes: int) -> dict[str, int]:
    """Counts and bytes of one execution, loop bodies times their trips.

    Args:
      compiled: the program.
      donated_bytes: size of the arguments that the program may overwrite.

    Returns:
      By name: operations, fusions, dots, copies (of values above `LARGE_COPY`) and copied_bytes,
      collectives and collective_bytes, host_transfers, f64 (values in double precision),
      moved_bytes (read and written in the device's memory), argument_bytes,
      new_output_bytes (those that are no argument updated in place), temporary_bytes,
      undonated_bytes (of the donated arguments, what is not updated in place).
    """
    text, memory = compiled.as_text(), compiled.memory_analysis()
    if text is None or memory is None:
        raise ValueError("this backend does not describe its programs, so nothing can be counted")
    traffic = count(text)
    kernels, copies = traffic.kernels(), traffic.copies(LARGE_COPY)
    return {
        "operations": sum(kernels.values()),
        "fusions": kernels["fusion"],
        "dots": kernels["dot"] + kernels["convolution"],
        "copies": sum(copy.times for copy in copies),
        "copied_bytes": sum(copy.moved for copy in copies) // 2,
        "collectives": sum(traffic.collectives().values()),
        "collective_bytes": traffic.payload(),
        "moved_bytes": traffic.total,
        "argument_bytes": memory.argument_size_in_bytes,
        "new_output_bytes": max(memory.output_size_in_bytes - memory.alias_size_in_bytes, 0),
        "temporary_bytes": memory.temp_size_in_bytes,
        "undonated_bytes": max(donated_bytes - memory.alias_size_in_bytes, 0),
        **_everywhere(text),
    }


def _everywhere(text: str) -> Mapping[str, int]:
    """Counts over all computations of the text, those inside fusions too."""
    wide = host = 0
    for computation in parse(text).computations.values():
        for instruction in computation.instructions.values():
            found: list[Array] = list(arrays(instruction.shape))
            wide += any(array.dtype in _WIDE for array in found)
            target = instruction.attribute(r'custom_call_target="([^"]*)"') or ""
            host += instruction.opcode in ("send", "recv", "infeed", "outfeed")
            host += any(name in target for name in _CALLBACK)
    return {"f64": wide, "host_transfers": host}
