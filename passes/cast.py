"""`cast`: compute in float16 or bfloat16 wherever the operators allow it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import numpy as np
from onnx import defs

from eopt.backends.base import Array
from eopt.ir.errors import UsageError
from eopt.ir.model import Model
from eopt.ir.node import Attrs, Op
from eopt.ir.surgery import retyped
from eopt.ir.types import DType, Value
from eopt.passes.base import Change, Context, Granularity, Outcome, Pass
from eopt.passes.contract import Contract, Sqnr

# Signal to noise that whole networks keep: float16 has 11 bits of mantissa (66 dB a rounding), bfloat16 8 (48 dB);
# some 30 layers of accumulated roundings and ill-conditioned normalisations cost about 25 dB.
_BOUND_DB = {DType.FLOAT16: 40.0, DType.BFLOAT16: 22.0}
_LARGEST = {DType.FLOAT16: 65504.0, DType.BFLOAT16: 3.3895e38}

# Operators whose steering inputs have types of their own, or whose meaning depends on the type.
_LEFT_ALONE = frozenset({"Cast", "CastLike", "QuantizeLinear", "DequantizeLinear", "Resize", "Range", "Constant"})


@dataclass(frozen=True)
class Cast(Pass):
    """Compute in float16 or bfloat16; inputs, outputs and operators without such kernels stay float32."""

    name: ClassVar[str] = "cast"
    after: ClassVar[tuple[str, ...]] = ("simplify", "fuse")
    conflicts: ClassVar[tuple[str, ...]] = ("quant",)
    granularity: ClassVar[Granularity] = Granularity.PASS

    to: DType = DType.FLOAT16
    keep: tuple[str, ...] = ()

    @property
    def contract(self) -> Contract:
        """See `_BOUND_DB`."""
        return Sqnr(_BOUND_DB.get(self.to, 0.0))

    def run(self, model: Model, context: Context) -> Outcome:
        """See `Pass.run`."""
        if self.to not in _BOUND_DB:
            raise UsageError(f"cast: to={self.to}; choose from {', '.join(_BOUND_DB)}")
        narrow = [op for op in model.leaves() if self._narrows(model, op)]
        if not narrow:
            return Outcome(model, notes=("nothing computes in float32",))
        rewritten, clipped = _rewrite(model, narrow, self.to)
        notes = (f"{clipped} weights beyond the range of {self.to} were clipped",) if clipped else ()
        change = Change(f"to {self.to}", f"{len(narrow)} of {len(model.leaves())} operators")
        if context.gate is None:
            return Outcome(rewritten, (change,), notes=notes)
        decision = context.gate.decide(model, rewritten)
        change = replace(change, saved_j=decision.saved_j, reason=decision.reason)
        if decision.reason:
            return Outcome(model, refused=(change,), notes=notes)
        return Outcome(rewritten, (change,), notes=notes)

    def _narrows(self, model: Model, op: Op) -> bool:
        if op.op in _LEFT_ALONE or op.op in self.keep or op.attrs.graphs:
            return False
        touches = any(model.value(name).dtype is DType.FLOAT32 for name in op.inputs if name)
        return touches and all(_allows(op, model.opsets.get(op.domain, 0), self.to))


@cache
def _types(domain: str, name: str, version: int) -> tuple[frozenset[str], ...]:
    """Types each port may hold, inputs first."""
    schema = defs.get_schema(name, version, domain)
    allowed = {item.type_param_str: frozenset(item.allowed_type_strs) for item in schema.type_constraints}
    ports = (*schema.inputs, *schema.outputs)
    return tuple(allowed.get(port.type_str, frozenset({port.type_str})) for port in ports)


def _allows(op: Op, version: int, to: DType) -> list[bool]:
    """For every port that may hold float32: whether it may hold the narrow type too."""
    try:
        ports = _types(op.domain, op.op, version)
    except defs.SchemaError:
        return [False]
    return [f"tensor({to})" in types for types in ports if "tensor(float)" in types]


def _rewrite(model: Model, narrow: list[Op], to: DType) -> tuple[Model, int]:
    """Retype the values that narrow operators make, convert their weights, and put casts at the borders."""
    uids = {op.uid for op in narrow}
    inside = {value.id for op in narrow for value in op.outputs if value.dtype is DType.FLOAT32}
    converted: dict[str, str] = {}
    weights: dict[str, Array] = {}
    clipped = 0
    for op in narrow:
        for name in op.inputs:
            if name and name not in inside and name not in converted and model.value(name).dtype is DType.FLOAT32:
                converted[name] = model.fresh(f"{name}_{to}")
                array = model.constant(name)
                if array is not None:
                    weights[converted[name]], overflow = _narrowed(array, to)
                    clipped += overflow
    result = _with_borders(model, uids, inside, converted, weights, to)
    types = {name: replace(model.value(name), dtype=to) for name in inside}
    return retyped(result, {name: value for name, value in types.items() if not model.is_output(name)}), clipped


def _narrowed(array: Array, to: DType) -> tuple[Array, bool]:
    """The array in the narrow type, finite values beyond its range clipped (infinities mean something: masks)."""
    overflow = np.isfinite(array) & (np.abs(array) > _LARGEST[to])
    kept = np.where(overflow, np.copysign(_LARGEST[to], array), array)
    return kept.astype(to.numpy), bool(overflow.any())


def _with_borders(
    model: Model,
    uids: set[int],
    inside: set[str],
    converted: dict[str, str],
    weights: dict[str, Array],
    to: DType,
) -> Model:
    narrow_name = {name: _narrow_name(model, name, to) for name in inside if model.is_output(name)}
    result, cast_in = model, set[str]()
    for op in model.leaves():
        new: list[Op] = []
        if op.uid in uids:
            entering = [n for n in dict.fromkeys(op.inputs) if n in converted and converted[n] not in weights]
            for name in entering:
                if name not in cast_in:
                    cast_in.add(name)
                    value = replace(model.value(name), id=converted[name], dtype=to)
                    new.append(Op("Cast", (name,), (value,), Attrs.of(to=to.onnx)))
            inputs = tuple(converted.get(n, narrow_name.get(n, n)) if n else n for n in op.inputs)
            outputs = tuple(Value(narrow_name[v.id], to, v.shape) if v.id in narrow_name else v for v in op.outputs)
            new.append(replace(op, uid=0, inputs=inputs, outputs=outputs))
            new += [
                Op("Cast", (narrow_name[v.id],), (v,), Attrs.of(to=DType.FLOAT32.onnx))
                for v in op.outputs
                if v.id in narrow_name
            ]
        else:
            new = _leaving(model, op, inside, to)
        if new:
            result = result.replace([result.index.op(op.uid)], new)
    return result.with_weights(weights)


def _narrow_name(model: Model, name: str, to: DType) -> str:
    return model.fresh(f"{name}_{to}")


def _leaving(model: Model, op: Op, inside: set[str], to: DType) -> list[Op]:
    """A float32 operator that reads narrow values gets them cast back, unless it converts types itself."""
    needed = [name for name in dict.fromkeys(op.inputs) if name in inside and not model.is_output(name)]
    if not needed or op.op == "Cast":
        return []
    back = {name: model.fresh(f"{name}_float32_{op.uid}") for name in needed}
    casts = [
        Op("Cast", (name,), (replace(model.value(name), id=back[name]),), Attrs.of(to=DType.FLOAT32.onnx))
        for name in needed
    ]
    inputs = tuple(back.get(name, name) if name else name for name in op.inputs)
    return [*casts, replace(op, uid=0, inputs=inputs)]
