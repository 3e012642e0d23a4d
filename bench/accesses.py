"""How much of a buffer one operation touches: a slice of it, an update in place, or all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.collectives import handed_on
from bench.hlo import Array, Computation, Instruction, Program, Shape, arrays

__all__ = ["alias_of", "read_share", "written_sizes"]

_UPDATES = ("dynamic-update-slice", "scatter")
_SLICES = ("slice", "dynamic-slice", "gather", "slice-start", "dynamic-slice-start")
# Applied element by element when the result is needed: a slice of it reads a slice of the input.
_LAZY = ("bitcast", "convert", "copy", "reshape", "transpose")


@dataclass
class _Access:
    """What a computation does with one of its values."""

    all: bool = False
    elements: int = 0  # of slices
    updated: bool = False  # reaches the result through an in-place update
    same: bool = False  # reaches the result as it is


def read_share(
    program: Program, at: Computation, instruction: Instruction, index: int
) -> Callable[[Array], int]:
    """Bytes that `instruction` reads of its operand `index`, as a function of a buffer of it."""
    opcode = instruction.opcode
    if opcode in _SLICES and index == 0:
        elements = _sliced(instruction)
        return lambda array: _bytes(array, elements)
    if opcode in _UPDATES and index == 0:
        return lambda array: 0
    if opcode != "fusion":
        return lambda array: array.size
    if index in handed_on(program, instruction)[0]:
        return lambda array: 0
    inner = program.computations[instruction.called["calls"]]
    access = _follow(program, inner, inner.parameters[index].name)
    in_place = access.updated and _same_space(program, at, instruction, index)
    if access.all or access.same or (access.updated and not in_place):
        return lambda array: array.size
    return lambda array: _bytes(array, access.elements)


def written_sizes(
    program: Program, at: Computation, instruction: Instruction
) -> Iterator[tuple[int, bool]]:
    """Bytes written to each buffer of the result, and whether it lies in HBM."""
    if instruction.opcode in ("copy-start", "slice-start", "dynamic-slice-start"):
        # (target, source, context) and ((source), target, context)
        assert isinstance(instruction.shape, tuple)
        target = instruction.shape[0 if instruction.opcode == "copy-start" else 1]
        assert isinstance(target, Array)
        yield target.size, target.in_hbm
        return
    if instruction.opcode.endswith("-start") and isinstance(instruction.shape, tuple):
        # (operands, results): a collective on its way writes its results only.
        for array in arrays(instruction.shape[1]):
            yield array.size, array.in_hbm
        return
    kept = handed_on(program, instruction)[1]
    for index, array in enumerate(arrays(instruction.shape)):
        if index in kept:
            yield 0, array.in_hbm
            continue
        update = None
        if alias_of(program, at, instruction, index) is not None:
            update = _update_elements(program, at, instruction, index)
        size = array.size if update is None else _bytes(array, update)
        yield size, array.in_hbm


def alias_of(program: Program, at: Computation, instruction: Instruction, index: int) -> int | None:
    """Operand that buffer `index` of the result updates in place; None if it is a new buffer."""
    if instruction.opcode in _UPDATES:
        return 0 if _one_space(at, instruction, 0, index) else None
    if instruction.opcode != "fusion":
        return None
    inner = program.computations[instruction.called["calls"]]
    update = _updating(program, inner, _result(inner, index))
    if update is None:
        return None
    base = _base(program, *update)
    if base is None or not _one_space(at, instruction, base, index):
        return None
    return base


def _one_space(at: Computation, instruction: Instruction, operand: int, index: int) -> bool:
    source = at.instructions[instruction.operands[operand]].shape
    target = list(arrays(instruction.shape))[index]
    return isinstance(source, Array) and source.space == target.space


def _same_space(program: Program, at: Computation, instruction: Instruction, index: int) -> bool:
    count = len(list(arrays(instruction.shape)))
    return any(alias_of(program, at, instruction, i) == index for i in range(count))


def _follow(program: Program, computation: Computation, name: str) -> _Access:
    """What `computation` does with the value `name`."""
    access = _Access()
    _uses(program, computation, name, False, access)
    return access


def _uses(
    program: Program, computation: Computation, name: str, updated: bool, access: _Access
) -> None:
    if computation.instructions[name].is_root:
        if updated:
            access.updated = True
        else:
            access.same = True
    for user, index in computation.users[name]:
        if user.opcode in _SLICES and index == 0:
            access.elements += _sliced(user)
        elif user.opcode in _UPDATES and index == 0:
            _uses(program, computation, user.name, True, access)
        elif user.opcode in _LAZY:
            _uses(program, computation, user.name, updated, access)
        elif user.opcode == "tuple" and user.is_root:
            if updated:
                access.updated = True
            else:
                access.same = True
        elif user.opcode == "fusion":
            inner = program.computations[user.called["calls"]]
            nested = _follow(program, inner, inner.parameters[index].name)
            access.all |= nested.all
            access.elements += nested.elements
            if nested.same or nested.updated:
                _uses(program, computation, user.name, updated or nested.updated, access)
        else:
            access.all = True


def _result(computation: Computation, index: int) -> Instruction:
    root = computation.root
    if root.opcode == "tuple":
        return computation.instructions[root.operands[index]]
    return root


def _updating(
    program: Program, computation: Computation, value: Instruction
) -> tuple[Computation, Instruction] | None:
    """The in-place update that makes `value`, seen through names and nested fusions."""
    while value.opcode == "bitcast":
        value = computation.instructions[value.operands[0]]
    if value.opcode in _UPDATES:
        return computation, value
    if value.opcode == "fusion":
        inner = program.computations[value.called["calls"]]
        if _updating(program, inner, _result(inner, 0)) is not None:
            return computation, value
    return None


def _base(program: Program, computation: Computation, update: Instruction) -> int | None:
    """Number of the parameter that `update` writes to; None if it is made on the spot."""
    index = 0
    if update.opcode == "fusion":
        inner = program.computations[update.called["calls"]]
        nested = _updating(program, inner, _result(inner, 0))
        assert nested is not None
        found = _base(program, *nested)
        if found is None:
            return None
        index = found
    value = computation.instructions[update.operands[index]]
    while value.opcode in ("bitcast", *_UPDATES):
        value = computation.instructions[value.operands[0]]
    return int(value.argument) if value.opcode == "parameter" else None


def _update_elements(
    program: Program, at: Computation, instruction: Instruction, index: int
) -> int | None:
    """Elements that an in-place update writes."""
    if instruction.opcode in _UPDATES:
        return _elements(at, instruction)
    inner = program.computations[instruction.called["calls"]]
    update = _updating(program, inner, _result(inner, index))
    if update is None:
        return None
    computation, value = update
    if value.opcode == "fusion":
        return _update_elements(program, computation, value, 0)
    return _elements(computation, value)


def _elements(at: Computation, update: Instruction) -> int:
    operand = update.operands[1 if update.opcode == "dynamic-update-slice" else 2]
    return sum(array.elements for array in arrays(at.instructions[operand].shape))


def _sliced(instruction: Instruction) -> int:
    shape: Shape = instruction.shape
    if isinstance(shape, tuple):  # ((source), slice, context) of an asynchronous slice
        shape = shape[1]
    return sum(array.elements for array in arrays(shape))


def _bytes(array: Array, elements: int) -> int:
    """Bytes of `elements` of a buffer, its padding spread over all; never more than it has."""
    return min(array.size, -(-elements * array.size // max(array.elements, 1)))
