"""XLA's optimised program text as data: what it runs, on which buffers, in which memory."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

__all__ = ["Array", "Computation", "Instruction", "Program", "arrays", "parse"]

_BITS = re.compile(r"^(?:pred|[a-z]+?(\d+))(?:[a-z]\w*)?$")
_ARRAY = re.compile(r"(\w+)\[([^\]]*)\](\{[^{}]*\})?")
_TILE = re.compile(r"\((\d+(?:,\d+)*)\)")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations=\{([^}]*)\}|true_computation=%?([\w.\-]+))")
_FALSE_BRANCH = re.compile(r"\bfalse_computation=%?([\w.\-]+)")
_DEVICES = re.compile(r"\b(?:replica_count|num_partitions)=(\d+)")
_NAMES = re.compile(r"%([\w.\-]+)")


@dataclass(frozen=True)
class Array:
    """One buffer: `size` counts its bytes with the padding of its tiles, `space` 0 is HBM."""

    dtype: str
    dims: tuple[int, ...]
    size: int
    space: int = 0

    @property
    def elements(self) -> int:
        """Number of elements, without padding."""
        return math.prod(self.dims)

    @property
    def in_hbm(self) -> bool:
        """Whether the buffer lies in the main memory of the device."""
        return self.space == 0


Shape = Array | tuple["Shape", ...]


@dataclass(frozen=True)
class Instruction:
    """One operation; `attributes` is the text behind its operands."""

    name: str
    shape: Shape
    opcode: str
    operands: tuple[str, ...]
    argument: str  # text between the parentheses
    attributes: str = field(repr=False)
    is_root: bool

    @cached_property
    def called(self) -> dict[str, str]:
        """Computations it runs, by role: calls, to_apply, body, condition."""
        return dict(_CALLED.findall(self.attributes))

    @cached_property
    def branches(self) -> tuple[str, ...]:
        """Computations of which a `conditional` runs one."""
        found = _BRANCHES.search(self.attributes)
        if found is None:
            return ()
        if found[1] is not None:
            return tuple(_NAMES.findall(found[1]))
        other = _FALSE_BRANCH.search(self.attributes)
        return (found[2], *([other[1]] if other else []))

    def attribute(self, pattern: str) -> str | None:
        """First group of `pattern` in the attributes."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else None

    @property
    def source(self) -> str:
        """Where the program asked for it: the argument's path, or the traced operation."""
        return self.attribute(r'op_name="([^"]*)"') or self.name


@dataclass(frozen=True)
class Computation:
    """Instructions in the order they run."""

    name: str
    instructions: dict[str, Instruction]

    @cached_property
    def root(self) -> Instruction:
        """The instruction whose value is the result."""
        return next(i for i in self.instructions.values() if i.is_root)

    @cached_property
    def parameters(self) -> list[Instruction]:
        """The parameters by number."""
        found = [i for i in self.instructions.values() if i.opcode == "parameter"]
        return sorted(found, key=lambda instruction: int(instruction.argument))

    @cached_property
    def users(self) -> dict[str, list[tuple[Instruction, int]]]:
        """For each value, who takes it and as which operand."""
        found: dict[str, list[tuple[Instruction, int]]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for index, operand in enumerate(instruction.operands):
                found[operand].append((instruction, index))
        return found


@dataclass(frozen=True)
class Program:
    """A compiled module."""

    computations: dict[str, Computation]
    entry: Computation
    devices: int  # that run it together


def arrays(shape: Shape) -> Iterator[Array]:
    """The buffers of a shape, tuples flattened."""
    if isinstance(shape, Array):
        yield shape
    else:
        for part in shape:
            yield from arrays(part)


def parse(text: str) -> Program:
    """Reads `compiled.as_text()`.

    Raises:
      ValueError: the text has no entry computation, so it is not an optimised program.
    """
    computations: dict[str, Computation] = {}
    entry = None
    name, body = "", {}
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            name, body = header[2], {}
            computations[name] = Computation(name, body)
            if header[1]:
                entry = computations[name]
            continue
        found = _INSTRUCTION.match(line)
        if found and name:
            body[found[2]] = _instruction(line, found)
    if entry is None:
        raise ValueError("got a text without ENTRY, expected the as_text() of a compiled program")
    head = text.partition("\n")[0]
    devices = math.prod(int(n) for n in _DEVICES.findall(head))
    return Program(computations, entry, devices)


def _instruction(line: str, head: re.Match[str]) -> Instruction:
    shape, at = _shape(line, head.end())
    opening = line.index("(", at)
    closing = _closing(line, opening)
    argument = line[opening + 1 : closing]
    opcode = line[at:opening].strip()
    is_value = opcode in ("constant", "parameter")
    return Instruction(
        name=head[2],
        shape=shape,
        opcode=opcode,
        operands=() if is_value else tuple(_NAMES.findall(argument)),
        argument=argument,
        attributes=line[closing + 1 :],
        is_root=bool(head[1]),
    )


def _shape(text: str, at: int) -> tuple[Shape, int]:
    """The shape that starts at `at`, and where it ends."""
    if text[at] == "(":
        parts = []
        at += 1
        while text[at] != ")":
            if text.startswith("/*", at):
                at = text.index("*/", at) + 2
            elif text[at] in ", ":
                at += 1
            else:
                part, at = _shape(text, at)
                parts.append(part)
        return tuple(parts), at + 1
    found = _ARRAY.match(text, at)
    if found is None:
        raise ValueError(f"not a shape: {text[at : at + 60]!r}")
    return _array(found[1], found[2], found[3] or ""), found.end()


def _array(dtype: str, dims_text: str, layout: str) -> Array:
    dims = tuple(int(d.lstrip("<=")) for d in dims_text.split(",") if d)
    order, _, rest = layout.strip("{}").partition(":")
    space = re.search(r"S\((\d+)\)", rest)
    # Physical order, slowest first; tiles cover the fastest dimensions.
    minor_to_major = [int(d) for d in order.split(",") if d]
    physical = [dims[d] for d in reversed(minor_to_major)] if minor_to_major else list(dims)
    tiles = re.match(r"T((?:\(\d+(?:,\d+)*\))+)", rest)
    elements = _padded(physical, tiles[1]) if tiles else math.prod(physical)
    size = -(-elements * _bits(dtype) // 8)
    return Array(dtype, dims, size, int(space[1]) if space else 0)


def _padded(physical: list[int], tiles: str) -> int:
    tile = [int(d) for d in (_TILE.findall(tiles)[0]).split(",")]
    sizes = [1] * (len(tile) - len(physical)) + physical
    covered = sizes[len(sizes) - len(tile) :]
    whole = [-(-size // by) * by for size, by in zip(covered, tile, strict=True)]
    return math.prod(sizes[: len(sizes) - len(tile)]) * math.prod(whole)


def _bits(dtype: str) -> int:
    if dtype in ("token", "opaque"):
        return 0
    found = _BITS.match(dtype)
    if found is None:
        raise ValueError(f"unknown element type {dtype!r} in a program text")
    return int(found[1] or 8)


def _closing(text: str, opening: int) -> int:
    depth = 0
    for at in range(opening, len(text)):
        if text[at] == "(":
            depth += 1
        elif text[at] == ")":
            depth -= 1
            if depth == 0:
                return at
    raise ValueError(f"unbalanced parentheses in {text[opening : opening + 60]!r}")
