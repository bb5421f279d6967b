"""What is executed for a model, whatever the extents: its kernels, each kind once with all the places it occurs at.

The plan is made once for a model, an executor and a target. Binding other extents prices the representatives again, so
a model of many equal layers answers in the time of one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from eopt.backends import formats
from eopt.backends.executor import Executor
from eopt.backends.fusion import Group, fuse
from eopt.backends.target import Target
from eopt.costmodel.features import Operand, leaves_group
from eopt.costmodel.training import asked_gradients, gradients
from eopt.ir.analysis import constants
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.ops import HOST_ELEMENTS, Trait, spec
from eopt.ir.types import DType, numel

CONTENT_ELEMENTS = 8  # floats up to this many steer an operator (scales of Resize); more are weights


@dataclass(frozen=True)
class PlannedKernel:
    """Operators executed at once, and every place where the same happens.

    Attributes:
        members: of the representative.
        uids: of the first member at each place.
        computes: type the group multiplies in, whatever its operators declare; None where that says it.
        gradients: which it computes in training, as `asked_gradients` says.
    """

    members: tuple[Op, ...]
    uids: tuple[int, ...]
    computes: DType | None
    gradients: tuple[bool, bool]


@dataclass(frozen=True)
class Plan:
    """Kernels of a model.

    Attributes:
        groups: fused groups by uid of their first member.
        operands: every value as kernels read or write it.
        free: operators that execute nothing (views, constants, absorbed dequantisations).
    """

    kernels: tuple[PlannedKernel, ...]
    groups: Mapping[int, Group]
    operands: Mapping[str, Operand]
    free: frozenset[int]


def planned(model: Model, executor: Executor, target: Target, training: bool) -> Plan:
    """The plan of a model with a shape for every value; meant for `Model.get`.

    Args:
        training: kernels that compute different gradients are of different kinds.
    """
    fusion = fuse(model, executor, target)
    constant = model.get(constants)
    executed = [(group, tuple(op for op in group.members if op.uid not in constant)) for group in fusion.groups]
    groups = {members[0].uid: replace(group, members=members) for group, members in executed if members}
    grouped = {op.uid: first for first, group in groups.items() for op in group.members}
    operands = _operands(model, fusion.absorbed, constant)
    wanted = model.get(gradients) if training else frozenset[str]()
    signatures = _Signatures(model, operands)
    places: dict[Hashable, list[int]] = {}
    kinds: dict[Hashable, PlannedKernel] = {}
    free: set[int] = set()
    for op in model.leaves():
        if op.uid in fusion.absorbed or op.uid in constant or _is_view(op):
            free.add(op.uid)
        elif grouped.get(op.uid, op.uid) == op.uid:
            group = groups.get(op.uid)
            members = group.members if group else (op,)
            computes = _computes(model, group) if group is not None and group.kind == "qdq" else None
            asked = asked_gradients(members, wanted)
            key = (computes, asked, *signatures.of(members))
            kinds.setdefault(key, PlannedKernel(members, (), computes, asked))
            places.setdefault(key, []).append(op.uid)
    kernels = (replace(kernel, uids=tuple(places[key])) for key, kernel in kinds.items())
    return Plan(tuple(kernels), groups, operands, frozenset(free - set(grouped)))


def _computes(model: Model, group: Group) -> DType:
    return DType.FLOAT8E4M3FN if formats.format_of(model, group.members[0]) == "float8" else DType.INT8


def _is_view(op: Op) -> bool:
    described = spec(op.op, op.domain)
    return described is not None and Trait.VIEW in described.traits


def _operands(model: Model, absorbed: frozenset[int], constant: frozenset[int]) -> dict[str, Operand]:
    """Every value with a known shape. An absorbed dequantisation hands its integers on; constants count as weights."""
    operands: dict[str, Operand] = {}
    for name in model.weights:
        dtype = model.weights.dtype(name)
        if dtype is not None:
            operands[name] = Operand(dtype.bits, model.weights.shape(name), True)
    for value in model.feeds:
        if value.dtype is not None and value.shape is not None:
            operands[value.id] = Operand(value.dtype.bits, value.shape, False)
    for op in model.leaves():
        source = operands.get(op.inputs[0] or "") if op.uid in absorbed else None
        for value in op.outputs:
            if source is not None:
                operands[value.id] = Operand(source.bits, source.shape, op.uid in constant)
            elif value.dtype is not None and value.shape is not None:
                operands[value.id] = Operand(value.dtype.bits, value.shape, op.uid in constant)
    return operands


class _Signatures:
    """What the cost of a kernel depends on, with values numbered instead of named."""

    def __init__(self, model: Model, operands: Mapping[str, Operand]) -> None:
        self.model, self.operands = model, operands
        self._contents: dict[str, Hashable] = {}

    def of(self, members: Sequence[Op]) -> Iterator[Hashable]:
        """Equal for kernels that cost the same at all extents."""
        numbers: dict[str, int] = {}
        leaving = leaves_group(self.model, members) if len(members) > 1 else set()
        for op in members:
            captured = (name for name in op.reads if name not in op.inputs)
            attributes = tuple(proto.SerializeToString(deterministic=True) for proto in op.attrs.protos)
            reads = tuple(self._value(name, numbers) for name in (*op.inputs, *captured))
            made = tuple(
                (v.dtype, v.shape, self.operands.get(v.id), v.id in leaving, numbers.setdefault(v.id, len(numbers)))
                for v in op.outputs
            )
            yield op.domain, op.op, attributes, reads, made

    def _value(self, name: str | None, numbers: dict[str, int]) -> Hashable:
        if name is None or name in numbers:
            return None if name is None else numbers[name]
        numbers[name] = len(numbers)
        value = self.model.value(name)
        return value.dtype, value.shape, self.operands.get(name), name in self.model.weights, self._content(name)

    def _content(self, name: str) -> Hashable:
        """What a specification may look into: axes, shapes, scales."""
        if name not in self._contents:
            self._contents[name] = self._looked_into(name)
        return self._contents[name]

    def _looked_into(self, name: str) -> Hashable:
        value = self.model.value(name)
        count = numel(value.shape)
        limit = CONTENT_ELEMENTS if value.dtype is not None and value.dtype.is_float else HOST_ELEMENTS
        array = self.model.constant(name) if count is not None and count <= limit else None
        return None if array is None else array.tobytes()
