"""What rules read of QuantizeLinear and DequantizeLinear: integers, and how they stand for real numbers.

`real = scale * (integer - zero_point)`, https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eopt.ir.node import Op
from eopt.ir.types import DType, Value, numel
from eopt.passes.rewrite import Array, Matcher

_INT32_REACH = 2**31 - 1


@dataclass(frozen=True)
class Quantised:
    """A tensor of 8-bit integers.

    Attributes:
        value: the integers.
        op: the QuantizeLinear or DequantizeLinear that was read.
        scale: name of the scale.
        zero_point: name of the zero point, None for 0.
        axis: along which scales and zero points run, counted from the front; None for one of each.
    """

    value: Value
    op: Op
    scale: str
    zero_point: str | None
    axis: int | None

    @property
    def limits(self) -> tuple[int, int]:
        """Least and largest integer of the type."""
        info = np.iinfo(_dtype(self).numpy)
        return int(info.min), int(info.max)

    def scales(self, m: Matcher) -> Array:
        """The scale as float64, shape () or (extent of the axis,).

        Raises:
            Miss: it is no constant.
        """
        array = m.constant(self.op, 1).astype(np.float64)
        return array.reshape(()) if self.axis is None else array

    def zero_points(self, m: Matcher) -> Array:
        """The zero point as int64, shape () or (extent of the axis,).

        Raises:
            Miss: it is no constant.
        """
        array = m.constant(self.op, 2).astype(np.int64) if self.zero_point else np.zeros((), np.int64)
        return array.reshape(()) if array.size == 1 else array

    def integer(self, m: Matcher, real: float) -> int:
        """What QuantizeLinear makes of a real number, for one scale."""
        nearest = np.rint(np.float32(real) / np.float32(self.scales(m))) + int(self.zero_points(m))
        return int(np.clip(nearest, *self.limits))

    def reach(self, m: Matcher) -> int:
        """Largest magnitude of integer - zero point; zero points that are computed may be any."""
        low, high = self.limits
        if self.zero_point and m.model.constant(self.zero_point) is None:
            return high - low
        points = self.zero_points(m)
        return int(max(points.max() - low, high - points.min()))

    def same_grid(self, m: Matcher, other: Quantised) -> bool:
        """True where equal integers stand for equal numbers."""
        alike = self.value.dtype is other.value.dtype and self.axis is None and other.axis is None
        grids = [(item.scales(m), item.zero_points(m)) for item in (self, other)] if alike else []
        return alike and bool(grids[0] == grids[1])


def dequantised(m: Matcher, op: Op, position: int) -> Quantised:
    """The integers behind an operand."""
    source = m.producer(op, position, "DequantizeLinear")
    name = source.inputs[0] or ""
    m.need(m.model.value(source.output).dtype is DType.FLOAT32, f"{source.output!r} is no float32", source)
    return _quantised(m, source, m.model.value(name))


def quantised(m: Matcher, op: Op) -> Quantised:
    """The integers a QuantizeLinear writes, with one constant scale and zero point."""
    found = _quantised(m, op, m.model.value(op.output))
    m.need(found.axis is None, "what it writes has a scale per channel", op)
    for position in range(1, 3 if found.zero_point else 2):
        m.constant(op, position)
    return found


def zero_point_of(m: Matcher, item: Quantised, arrays: dict[str, Array]) -> str:
    """Its name; where there is none, that of a new 0."""
    if item.zero_point:
        return item.zero_point
    name = m.model.fresh(f"{item.value.id}_zero_point")
    arrays[name] = np.zeros(() if item.axis is None else item.scales(m).shape, _dtype(item).numpy)
    return name


def integer_inputs(m: Matcher, left: Quantised, right: Quantised, arrays: dict[str, Array]) -> tuple[str | None, ...]:
    """Inputs of ConvInteger and MatMulInteger.

    onnxruntime 1.32 has no ConvInteger with one zero point per channel: one for all has to do.
    """
    inputs = [left.value.id, right.value.id, left.zero_point, _one_zero_point(m, right, arrays)]
    while not inputs[-1]:
        inputs.pop()
    return tuple(inputs)


def _one_zero_point(m: Matcher, item: Quantised, arrays: dict[str, Array]) -> str | None:
    if not item.zero_point or item.axis is None:
        return item.zero_point
    points = np.unique(item.zero_points(m))
    m.need(points.size == 1, "its zero points differ between channels, for which there is no kernel", item.op)
    if not points[0]:
        return None
    name = m.model.fresh(f"{item.zero_point}_all")
    arrays[name] = points[0].astype(_dtype(item).numpy)
    return name


def need_room(m: Matcher, op: Op, terms: int | None, factors: Sequence[Quantised], bias: int = 0) -> None:
    """Demand that no sum of so many products leaves int32, in which kernels add up."""
    m.need(terms is not None, "the extent it sums over is unknown, so its sums might leave int32", op)
    largest = (terms or 0) * factors[0].reach(m) * factors[1].reach(m) + bias
    m.need(largest <= _INT32_REACH, f"its sums may reach {largest:.3g} and leave int32", op)


def need_kernel(m: Matcher, op: Op, left: Quantised, right: Quantised, result: Quantised) -> None:
    """Demand types that QLinear operators of onnxruntime take: what they write is of the type they read, and int8
    stands beside int8 only."""
    types = [_dtype(item) for item in (left, right, result)]
    fits = types[0] is types[2] and (types[0] is DType.UINT8 or types[1] is DType.INT8)
    m.need(fits, f"no kernel for {types[0]} times {types[1]} to {types[2]}", op)


def spent(m: Matcher, ops: Sequence[Op], sources: Sequence[Quantised]) -> list[Op]:
    """The operators, and of what dequantises for them all that nothing else reads."""
    gone = {op.uid: op for op in ops}
    for op in (item.op for item in sources if not m.model.is_output(item.op.output)):
        if all(user.uid in gone for user in m.model.users(op.output)):
            gone[op.uid] = op
    return list(gone.values())


def _quantised(m: Matcher, op: Op, value: Value) -> Quantised:
    m.need(not op.attrs.get("block_size", 0), f"{value.id!r} has one scale per block of an axis", op)
    eight = value.dtype in (DType.INT8, DType.UINT8)
    m.need(eight, f"{value.id!r} is {value.dtype}; integer operators take int8 and uint8", op)
    scale, zero_point = op.inputs[1] or "", op.inputs[2] if len(op.inputs) > 2 else None
    shape = m.model.value(scale).shape
    m.need(shape is not None and m.model.value(scale).dtype is DType.FLOAT32, "its scale is no float32 scalar", op)
    if numel(shape) == 1:
        return Quantised(value, op, scale, zero_point, None)
    rank = len(value.shape) if value.shape is not None else 0
    m.need(rank and shape is not None and len(shape) == 1, f"{value.id!r} has scales along more than one axis", op)
    return Quantised(value, op, scale, zero_point, int(op.attrs.get("axis", 1)) % rank)


def _dtype(item: Quantised) -> DType:
    assert item.value.dtype is not None
    return item.value.dtype
