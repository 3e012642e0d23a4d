"""Bytes that a compiled program moves through HBM, counted in its own text.

The compiler's `cost_analysis` counts the body of a loop once and goes negative with asynchronous
prefetches; this counts what is read from and written to buffers in HBM: slices as slices, in-place
updates as the update, loop bodies times their trip count, prefetches into on-chip memory once.
It is a lower bound on traffic: a kernel that reads an operand twice is counted once.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.accesses import alias_of, read_share, written_sizes
from bench.collectives import Collective, collectives_of
from bench.hlo import Array, Computation, Instruction, Program, Shape, arrays, parse

__all__ = ["Operation", "Traffic", "count"]

# Names for a value that was there already, or values that no kernel makes.
_FREE = (
    "parameter constant tuple get-tuple-element bitcast after-all add-dependency partition-id "
    "replica-id opt-barrier copy-done slice-done dynamic-slice-done async-done async-update "
    "all-reduce-done all-gather-done reduce-scatter-done collective-permute-done "
    "all-to-all-done send-done recv-done"
)
_FREE_CALLS = frozenset(
    ["ConcatBitcast", "AllocateBuffer", "Sharding", "AssumeGatherIndicesInBound"]
)
_HOST = frozenset(["send", "recv", "infeed", "outfeed"])
_TRIPS = r'"known_trip_count":\{"n":"(\d+)"'

# The argument that a value is, or is a copy of; a tuple for a tuple; None for everything else.
Origin = str | None | tuple["Origin", ...]


@dataclass(frozen=True)
class Operation:
    """What one operation of the program moves in all its executions."""

    name: str
    opcode: str
    source: str  # where the traced program asked for it
    times: int
    reads: Mapping[str | None, int]  # HBM bytes by argument; None for intermediate values
    writes: Mapping[str | None, int]  # likewise; an argument is one that is updated in place
    collectives: tuple[Collective, ...] = ()  # that one execution begins
    host: bool = False

    @property
    def moved(self) -> int:
        """Bytes read and written."""
        return sum(self.reads.values()) + sum(self.writes.values())

    @property
    def is_copy(self) -> bool:
        """Whether all it does is move HBM to HBM."""
        return self.opcode in ("copy", "copy-start") and bool(self.reads) and bool(self.writes)


@dataclass(frozen=True)
class Traffic:
    """All operations of one execution of a program."""

    operations: list[Operation]
    arguments: Mapping[str, int]  # bytes of each argument that the program keeps, a device
    dtypes: frozenset[str]  # element types that occur anywhere in the program

    @property
    def total(self) -> int:
        """HBM bytes read and written."""
        return sum(operation.moved for operation in self.operations)

    def by_argument(self) -> Counter[str | None]:
        """Bytes moved by argument of the program; None for intermediate values."""
        found: Counter[str | None] = Counter()
        for operation in self.operations:
            found.update(operation.reads)
            found.update(operation.writes)
        return found

    def copies(self, at_least: int = 0) -> list[Operation]:
        """HBM-to-HBM copies of `at_least` bytes an execution, largest first."""
        found = [o for o in self.operations if o.is_copy and o.moved // 2 // o.times >= at_least]
        return sorted(found, key=lambda operation: -operation.moved)

    def largest_write(self) -> Operation:
        """The operation that writes most outside the arguments, an execution: a hidden copy."""
        return max(self.operations, key=lambda o: o.writes.get(None, 0) // o.times)

    def collectives(self) -> Counter[str]:
        """Executions of collectives by kind."""
        found: Counter[str] = Counter()
        for operation in self.operations:
            for collective in operation.collectives:
                found[collective.kind] += operation.times
        return found

    def payload(self) -> int:
        """Bytes that collectives carry, a device: of each its larger side."""
        return sum(o.times * c.payload for o in self.operations for c in o.collectives)

    def sent(self) -> int:
        """Bytes that a device sends in collectives."""
        return sum(o.times * c.sent for o in self.operations for c in o.collectives)

    def kernels(self) -> Counter[str]:
        """Executed operations by opcode; a loop's body counts each time round."""
        found: Counter[str] = Counter()
        for operation in self.operations:
            found[operation.opcode] += operation.times
        return found

    def host_transfers(self) -> list[Operation]:
        """Operations that talk to the host while the program runs."""
        return [operation for operation in self.operations if operation.host]


def count(text: str, *, trips: int | None = None) -> Traffic:
    """Counts the text of a compiled program (`compiled.as_text()`).

    Args:
      text: the program.
      trips: how often loops run whose end is a value of the program; none may be if None.

    Raises:
      ValueError: the text is not an optimised program, or a loop's trip count is not known.
    """
    program = parse(text)
    walk = _Walk(program, trips)
    labels = [parameter.source for parameter in program.entry.parameters]
    walk.run(program.entry, labels, 1)
    dtypes = {
        array.dtype
        for computation in program.computations.values()
        for instruction in computation.instructions.values()
        for array in arrays(instruction.shape)
    }
    sizes = {p.source: sum(a.size for a in arrays(p.shape)) for p in program.entry.parameters}
    return Traffic(walk.operations, sizes, frozenset(dtypes))


class _Walk:
    """Follows the program in the order it runs, with the origin of every value."""

    def __init__(self, program: Program, trips: int | None):
        self.program, self.trips = program, trips
        self.operations: list[Operation] = []

    def run(self, computation: Computation, arguments: Iterable[Origin], times: int) -> Origin:
        """Counts a computation and returns the origin of its result."""
        given = list(arguments)
        origins: dict[str, Origin] = {}
        for instruction in computation.instructions.values():
            if instruction.opcode == "parameter":
                origins[instruction.name] = given[int(instruction.argument)]
            else:
                origins[instruction.name] = self._step(computation, instruction, origins, times)
        return origins[computation.root.name]

    def _step(
        self, at: Computation, instruction: Instruction, origins: dict[str, Origin], times: int
    ) -> Origin:
        given = [origins[name] for name in instruction.operands]
        opcode = instruction.opcode
        computations = self.program.computations
        if opcode == "while":
            trips = _trip_count(instruction, computations, self.trips)
            self.run(computations[instruction.called["condition"]], given, 0)
            return self.run(computations[instruction.called["body"]], given, times * trips)
        if opcode == "call" or (opcode == "async-start" and "calls" in instruction.called):
            role = "to_apply" if opcode == "call" else "calls"
            inner = self.run(computations[instruction.called[role]], given, times)
            return inner if opcode == "call" else (tuple(given), inner)
        if opcode == "conditional":
            return self._conditional(instruction, given[1:], times)
        if opcode == "tuple":
            return tuple(given)
        if opcode == "get-tuple-element":
            index = instruction.attribute(r"index=(\d+)")
            assert index is not None
            return given[0][int(index)] if isinstance(given[0], tuple) else None
        if opcode == "async-done":
            return given[0][1] if isinstance(given[0], tuple) else None
        if opcode in ("bitcast", "opt-barrier", "copy-done", "slice-done", "async-update"):
            return given[0]
        if opcode in _FREE.split() or self._custom_target(instruction) in _FREE_CALLS:
            return given[0] if len(set(given)) == 1 else None
        if times:
            self._count(at, instruction, given, times)
        return self._result(at, instruction, given)

    def _conditional(self, instruction: Instruction, given: list[Origin], times: int) -> Origin:
        """The branch that moves most stands for all: which one runs is known at run time only."""
        before, results, best = self.operations, [], []
        for name, origin in zip(instruction.branches, given, strict=True):
            self.operations = []
            results.append(self.run(self.program.computations[name], [origin], times))
            if sum(o.moved for o in self.operations) >= sum(o.moved for o in best):
                best = self.operations
        self.operations = before + best
        return results[0] if len(set(results)) == 1 else None

    def _result(self, at: Computation, instruction: Instruction, given: list[Origin]) -> Origin:
        """A copy, a slice, or an in-place update of an argument is still that argument."""
        if instruction.opcode in ("copy", "copy-start", "slice-start", "dynamic-slice-start"):
            return given[0]
        if isinstance(instruction.shape, tuple):
            aliases = [self._alias(at, instruction, i) for i in range(len(instruction.shape))]
            return tuple(None if a is None else given[a] for a in aliases)
        alias = self._alias(at, instruction, 0)
        return None if alias is None else given[alias]

    def _alias(self, at: Computation, instruction: Instruction, index: int) -> int | None:
        return alias_of(self.program, at, instruction, index)

    @staticmethod
    def _custom_target(instruction: Instruction) -> str | None:
        if instruction.opcode != "custom-call":
            return None
        return instruction.attribute(r'custom_call_target="([^"]*)"')

    def _count(
        self, at: Computation, instruction: Instruction, given: list[Origin], times: int
    ) -> None:
        reads: Counter[str | None] = Counter()
        writes: Counter[str | None] = Counter()
        for index, (name, origin) in enumerate(zip(instruction.operands, given, strict=True)):
            shape = at.instructions[name].shape
            share = read_share(self.program, at, instruction, index)
            for array, label in _leaves(shape, origin):
                if array.in_hbm:
                    reads[label] += times * share(array)
        for index, (size, in_hbm) in enumerate(written_sizes(self.program, at, instruction)):
            if in_hbm:
                alias = self._alias(at, instruction, index)
                label = None if alias is None else given[alias]
                writes[label if isinstance(label, str) else None] += times * size
        target = self._custom_target(instruction) or ""
        self.operations.append(
            Operation(
                name=instruction.name,
                opcode=instruction.opcode,
                source=instruction.source,
                times=times,
                reads=+reads,
                writes=+writes,
                collectives=tuple(collectives_of(self.program, at, instruction)),
                host=instruction.opcode in _HOST or "callback" in target or "Host" in target,
            )
        )


def _leaves(shape: Shape, origin: Origin) -> list[tuple[Array, str | None]]:
    """Each buffer of a value with the argument it is."""
    if isinstance(shape, Array):
        return [(shape, origin if isinstance(origin, str) else None)]
    parts = origin if isinstance(origin, tuple) else (None,) * len(shape)
    return [leaf for part in zip(shape, parts, strict=True) for leaf in _leaves(*part)]


def _trip_count(
    instruction: Instruction, computations: dict[str, Computation], otherwise: int | None
) -> int:
    known = instruction.attribute(_TRIPS)
    if known is not None:
        return int(known)
    # Loops that XLA unrolled itself compare a counter from 0 with a constant.
    condition = computations[instruction.called["condition"]]
    root = condition.root
    for name in root.operands:
        operand = condition.instructions[name]
        if operand.opcode == "constant" and "direction=LT" in root.attributes:
            return int(operand.argument)
    if otherwise is not None:
        return otherwise
    raise ValueError(f"loop {instruction.name} has no known trip count, so its bytes are unknown")
