"""What narrow operators compute, said in float32: operands and results are rounded to the narrow type and back.

The engine that samples run on may have no narrow kernels. onnxruntime computes float16 operators in float32 on a CPU
and drops the casts between them, explicit ones too, so that no overflow ever shows; pairs of casts between operators
on float32 it keeps. Inside an operator float32 is what matrix units accumulate in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from eopt.backends.base import Array
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.types import DType
from eopt.passes.cast.narrow import cast, clipped, is_wide


def emulated(model: Model, narrow: Sequence[Op], to: DType) -> Model:
    """The model with the operands and results of these operators rounded."""
    edit = _Rounding(model, to, frozenset(value.id for op in narrow for value in op.outputs))
    result = model
    for op in narrow:
        exact = {value.id: model.fresh(f"{value.id}_exact") for value in op.outputs if is_wide(value)}
        result = result.replace([result.index.op(op.uid)], edit.rounded(op, exact, {name: name for name in exact}))
    return result.with_weights(edit.weights).swept()


def shadowed(model: Model, ops: Sequence[Op], to: DType) -> tuple[Model, Mapping[int, tuple[tuple[str, str], ...]]]:
    """The model with a rounded version of each operator beside it, which reads the values of the exact ones.

    Returns:
        The model, and by uid the pairs of each result and its rounded version.
    """
    edit = _Rounding(model, to, frozenset())
    result, pairs = model, dict[int, tuple[tuple[str, str], ...]]()
    for op in ops:
        inner = {value.id: model.fresh(f"{value.id}_exact") for value in op.outputs if value.id}
        twins = {value.id: model.fresh(f"{value.id}_rounded") for value in op.outputs if is_wide(value)}
        result = result.replace([result.index.op(op.uid)], [replace(op, uid=0), *edit.rounded(op, inner, twins)])
        pairs[op.uid] = tuple(twins.items())
    return result.with_weights(edit.weights), pairs


@dataclass
class _Rounding:
    """Rounded twins of values and constants, each made once.

    Attributes:
        made: values that are rounded where they are computed.
    """

    model: Model
    to: DType
    made: frozenset[str]
    names: dict[str, str] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)

    def rounded(self, op: Op, inner: Mapping[str, str], results: Mapping[str, str]) -> list[Op]:
        """The operator on rounded operands, writing names of `inner`, and these rounded under those of `results`."""
        new: list[Op] = []
        inputs = tuple(self._read(name, new) if name else name for name in op.inputs)
        outputs = tuple(replace(value, id=inner.get(value.id, value.id)) for value in op.outputs)
        new.append(replace(op, uid=0, name="", inputs=inputs, outputs=outputs))
        for name, result in results.items():
            new += self._pair(inner[name], name, result)
        return new

    def _read(self, name: str, new: list[Op]) -> str:
        if name in self.made or name in self.names or not is_wide(self.model.value(name)):
            return self.names.get(name, name)
        self.names[name] = self.model.fresh(f"{name}_operand")
        array = self.model.constant(name)
        if array is None:
            new += self._pair(name, name, self.names[name])
        else:
            self.weights[self.names[name]] = clipped(array, self.to)[0].astype(array.dtype)
        return self.names[name]

    def _pair(self, source: str, name: str, result: str) -> list[Op]:
        value = self.model.value(name)
        middle = replace(value, id=self.model.fresh(f"{result}_{self.to}"), dtype=self.to)
        return [cast(source, middle), cast(middle.id, replace(value, id=result))]
