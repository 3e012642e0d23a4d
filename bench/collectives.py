"""Collectives in a program's text: their kind, what they carry, and what of it a device sends.

The compiler for TPUs hides them in fusions, and there the operation's name misleads: a sum of which
each device keeps a slice is a reduce-scatter, and a collective that goes on beside other work is
named by a whole chain of fusions (start, work, ..., done), but happens once.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bench.hlo import Computation, Instruction, Program, arrays

__all__ = ["KINDS", "Collective", "collectives_of", "handed_on"]

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
)
_START = 'custom_call_target="AsyncCollectiveStart"'
_DONE = 'custom_call_target="AsyncCollectiveDone"'
_CHAIN = '"async_collective_fusion_config"'
_LAZY = ("bitcast", "reshape", "convert")
_ALIASING = r"output_to_operand_aliasing=\{((?:\{\d*\}: \(\d+, \{\}\)(?:, )?)+)\}"
_ALIAS = re.compile(r"\{(\d*)\}: \((\d+),")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_COUNTED = re.compile(r"replica_groups=\[\d+,(\d+)\]<=")


@dataclass(frozen=True)
class Collective:
    """One exchange between devices.

    Attributes:
      kind: one of `KINDS`.
      payload: bytes of its larger side: what is gathered, or what is reduced.
      sent: bytes that one device sends, and receives, when the group passes them round a ring; no
        algorithm sends less.
    """

    kind: str
    payload: int
    sent: int


def collectives_of(
    program: Program, at: Computation, instruction: Instruction
) -> Iterator[Collective]:
    """What `instruction` begins; the later links of a chain begin nothing."""
    kind = _kind(instruction)
    if kind is not None:
        yield _collective(program, at, instruction, kind)
    elif instruction.opcode == "fusion":
        inner = program.computations[instruction.called["calls"]]
        started = {i.operands[0] for i in inner.instructions.values() if _START in i.attributes}
        for one in inner.instructions.values():
            kind = _kind(one)
            if kind == "all-reduce" and _is_sliced(inner, one):
                kind = "reduce-scatter"
            if kind is None:
                yield from collectives_of(program, inner, one)
            elif one.name in started or _CHAIN not in one.attributes:
                yield _collective(program, inner, one, kind)


def handed_on(program: Program, instruction: Instruction) -> tuple[set[int], set[int]]:
    """Numbers of the operands and results that a link of a chain holds for the next one only.

    They are the buffers of the collective: its start reads the one and writes the other.
    """
    if instruction.opcode != "fusion":
        return set(), set()
    inner = program.computations[instruction.called["calls"]]
    values = inner.instructions.values()
    if not any(_kind(i) is not None and _CHAIN in i.attributes for i in values):
        return set(), set()
    if _DONE in inner.root.attributes:
        return set(range(len(instruction.operands))), {0}
    listed = instruction.attribute(_ALIASING) or ""
    pairs = [(int(result or 0), int(operand)) for result, operand in _ALIAS.findall(listed)]
    is_start = any(_START in i.attributes for i in values)
    operands = set() if is_start else {operand for _, operand in pairs}
    return operands, {result for result, _ in pairs}


def _kind(instruction: Instruction) -> str | None:
    name = instruction.opcode.removesuffix("-start")
    return name if name in KINDS else None


def _is_sliced(at: Computation, instruction: Instruction) -> bool:
    """Whether all that is ever taken of a value is one slice."""
    users = at.users[instruction.name]
    while len(users) == 1 and users[0][0].opcode in _LAZY:
        users = at.users[users[0][0].name]
    return [user.opcode for user, _ in users] == ["dynamic-slice"]


def _collective(
    program: Program, at: Computation, instruction: Instruction, kind: str
) -> Collective:
    given = sum(a.size for n in instruction.operands for a in arrays(at.instructions[n].shape))
    results = [array.size for array in arrays(instruction.shape)]
    # An asynchronous start lists its operands, its results and its context.
    is_start = instruction.opcode.endswith("-start") and isinstance(instruction.shape, tuple)
    payload = max(given, *results) if is_start else max(given, sum(results))
    return Collective(kind, payload, _sent(kind, payload, _group(program, instruction)))


def _group(program: Program, instruction: Instruction) -> int:
    """Devices that take part together."""
    listed = _LISTED.search(instruction.attributes)
    if listed:
        return len(listed[1].split(","))
    counted = _COUNTED.search(instruction.attributes)
    return int(counted[1]) if counted else program.devices


def _sent(kind: str, payload: int, group: int) -> int:
    if kind in ("collective-permute", "collective-broadcast"):
        return payload
    share = payload * (group - 1) // group
    return 2 * share if kind == "all-reduce" else share
