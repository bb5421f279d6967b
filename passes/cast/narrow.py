"""Exchange float32 for a narrower type in some operators, with casts at the borders only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from onnx import defs

from eopt.backends.base import Array
from eopt.ir.model import Model
from eopt.ir.node import Attrs, Op
from eopt.ir.types import DType, Value

LARGEST = {DType.FLOAT16: 65504.0, DType.BFLOAT16: 3.3895e38}

# Operators whose steering inputs have types of their own, or whose meaning depends on the type.
_LEFT_ALONE = frozenset({"Cast", "CastLike", "QuantizeLinear", "DequantizeLinear", "Resize", "Range", "Constant"})
_VIEWS = frozenset({"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Expand", "Split"})


def narrowable(model: Model, op: Op, to: DType) -> bool:
    """True for operators on float32 that may compute in the narrow type by their schema."""
    if op.op in _LEFT_ALONE or op.attrs.graphs:
        return False
    touches = any(model.value(name).dtype is DType.FLOAT32 for name in op.inputs if name)
    return touches and all(_allows(op, model.opsets.get(op.domain, 0), to))


@cache
def _types(domain: str, name: str, version: int) -> tuple[tuple[frozenset[str], ...], tuple[frozenset[str], ...]]:
    """Types each input and each output may hold."""
    schema = defs.get_schema(name, version, domain)
    allowed = {item.type_param_str: frozenset(item.allowed_type_strs) for item in schema.type_constraints}
    inputs, outputs = (
        tuple(allowed.get(port.type_str, frozenset({port.type_str})) for port in ports)
        for ports in (schema.inputs, schema.outputs)
    )
    return inputs, outputs


def _allows(op: Op, version: int, to: DType) -> list[bool]:
    """For every port in use that may hold float32: whether it may hold the narrow type too."""
    try:
        inputs, outputs = _types(op.domain, op.op, version)
    except defs.SchemaError:
        return [False]
    used = [*inputs[: len(op.inputs)], *outputs[: len(op.outputs)]]  # a variadic port comes last and counts once
    return [f"tensor({to})" in types for types in used if "tensor(float)" in types]


def closed(model: Model, narrow: Collection[int]) -> list[Op]:
    """The operators with these uids in execution order, less views of values that others compute.

    A view follows its source. So no two casts surround one, and a value crosses a border once, whoever reads views
    of it.
    """
    chosen: dict[int, Op] = {}
    for op in model.leaves():
        if op.uid not in narrow:
            continue
        source = op.inputs[0] or "" if op.op in _VIEWS and not op.domain else ""
        producer = model.producer(source)
        if not source or model.constant(source) is not None or (producer is not None and producer.uid in chosen):
            chosen[op.uid] = op
    return list(chosen.values())


def together(model: Model, op: Op) -> set[int]:
    """The uids of an operator and of those that compute its operands, views looked through.

    What makes the error of one operator large is the rounding of its operands, which it cannot undo.
    """
    found, pending = {op.uid}, list(op.reads)
    while pending:
        producer = model.producer(pending.pop())
        if producer is not None and producer.uid not in found:
            found.add(producer.uid)
            pending += producer.reads[:1] if producer.op in _VIEWS and not producer.domain else ()
    return found


def narrowed(model: Model, narrow: Sequence[Op], to: DType) -> tuple[Model, int]:
    """The model with these operators in the narrow type, and the number of weights that had to be clipped."""
    edit = _Edit(model, to, frozenset(value.id for op in narrow for value in op.outputs if is_wide(value)))
    uids = {op.uid for op in narrow}
    result = model
    for op in model.leaves():
        new = edit.narrow(op) if op.uid in uids else edit.wide(op)
        if new:
            result = result.replace([result.index.op(op.uid)], new)
    return result.with_weights(edit.weights).swept(), edit.clipped


@dataclass
class _Edit:
    """What has been said so far: in which type each value is there, and under which name in the other.

    Attributes:
        made: float32 values that narrow operators compute.
        names: by value and type, the name of its cast.
        weights: constants in the narrow type, each once however many read it.
        clipped: constants with finite values beyond the range.
    """

    model: Model
    to: DType
    made: frozenset[str]
    names: dict[tuple[str, DType], str] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    clipped: int = 0

    def narrow(self, op: Op) -> list[Op]:
        """The operator in the narrow type, casts of what it reads before it; outputs of the graph are cast back."""
        new = self.reading(op, self.to)
        outputs, back = [], list[Op]()
        for value in op.outputs:
            if value.id in self.made and self._public(value.id):
                inner = self._named(value.id, self.to)
                back.append(cast(inner, value))
                value = replace(value, id=inner)
            outputs.append(replace(value, dtype=self.to) if is_wide(value) else value)
        new[-1] = replace(new[-1], outputs=tuple(outputs))
        return [*new, *back]

    def wide(self, op: Op) -> list[Op]:
        """A float32 operator, with casts of what it reads of narrow ones; nothing where it stays as it is.

        A Cast reads any type.
        """
        new = [] if op.op == "Cast" else self.reading(op, DType.FLOAT32)
        return new if new and new[-1].inputs != op.inputs else []

    def reading(self, op: Op, dtype: DType) -> list[Op]:
        """The operator reading its operands in this type, behind the casts that are not there yet."""
        casts: list[Op] = []
        inputs: list[str | None] = []
        for name in op.inputs:
            wide = name and is_wide(self.model.value(name))
            inputs.append(self._in(name, dtype, casts) if name and wide else name)
        return [*casts, replace(op, uid=0, inputs=tuple(inputs))]

    def _in(self, name: str, dtype: DType, casts: list[Op]) -> str:
        there = self.to if name in self.made and not self._public(name) else DType.FLOAT32
        if dtype is there or (name, dtype) in self.names:
            return self.names.get((name, dtype), name)
        other, array = self._named(name, dtype), self.model.constant(name)
        if array is not None:
            self.weights[other], overflow = clipped(array, dtype)
            self.clipped += overflow
        else:
            casts.append(cast(name, replace(self.model.value(name), id=other, dtype=dtype)))
        return other

    def _named(self, name: str, dtype: DType) -> str:
        return self.names.setdefault((name, dtype), self.model.fresh(f"{name}_{dtype}"))

    def _public(self, name: str) -> bool:
        """Graph outputs keep name and type, as does what subgraphs capture."""
        return self.model.is_output(name) or any(name not in user.inputs for user in self.model.users(name))


def is_wide(value: Value) -> bool:
    """True for float32."""
    return value.dtype is DType.FLOAT32


def cast(name: str, value: Value) -> Op:
    """The operator that converts a value to another type and name."""
    assert value.dtype is not None
    return Op("Cast", (name,), (value,), Attrs.of(to=value.dtype.onnx))


def clipped(array: Array, to: DType) -> tuple[Array, bool]:
    """The array in the narrow type, finite values beyond its range clipped (infinities mean something: masks)."""
    overflow = np.isfinite(array) & (np.abs(array) > LARGEST[to])
    kept = np.where(overflow, np.copysign(LARGEST[to], array), array)
    return kept.astype(to.numpy), bool(overflow.any())
