"""What stands behind an integer product: saturation towards integers, or scales and bias towards float."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from eopt.ir.node import Attrs, Op
from eopt.ir.types import DType, Value
from eopt.passes.lower_qop.grids import Quantised
from eopt.passes.rewrite import Array, Matcher


@dataclass(frozen=True)
class Tail:
    """A QuantizeLinear and what it may be computed with.

    Attributes:
        op: the operator whose result is quantised.
        ops: it, the activation function behind it, and the QuantizeLinear.
        bounds: least and largest integer the activation function lets through.
    """

    op: Op
    ops: tuple[Op, ...]
    bounds: tuple[int, int]


def tail(m: Matcher, quantize: Op, result: Quantised, kinds: tuple[str, ...]) -> Tail:
    """The operator of these types in front of a QuantizeLinear, looking through one Relu or Clip.

    Rounding to a grid is monotone: what is limited first and rounded then is rounded first and limited then.
    """
    above = m.producer(quantize, 0, (*kinds, "Relu", "Clip"), uses=1)
    if above.op in kinds:
        return Tail(above, (above, quantize), result.limits)
    op = m.producer(above, 0, kinds, uses=1)
    low, high = (0.0, math.inf) if above.op == "Relu" else (_bound(m, above, 1), _bound(m, above, 2))
    return Tail(op, (op, above, quantize), (result.integer(m, low), result.integer(m, high)))


def _bound(m: Matcher, clip: Op, position: int) -> float:
    if position >= len(clip.inputs) or not clip.inputs[position]:
        return math.inf if position == 2 else -math.inf
    return float(m.constant(clip, position).reshape(()))


def saturating(m: Matcher, op: Op, result: Quantised, bounds: tuple[int, int], arrays: dict[str, Array]) -> list[Op]:
    """An operator that writes integers, limited further where its type alone does not."""
    if bounds == result.limits:
        return [op]
    raw = Value(m.model.fresh(f"{result.value.id}_raw"), result.value.dtype, result.value.shape)
    names = [m.model.fresh(f"{result.value.id}_{end}") for end in ("low", "high")]
    assert result.value.dtype is not None
    arrays |= {name: np.array(end, result.value.dtype.numpy) for name, end in zip(names, bounds, strict=True)}
    return [replace(op, outputs=(raw,)), Op("Clip", (raw.id, *names), op.outputs)]


@dataclass(frozen=True)
class Scaled:
    """Integer sums as real numbers.

    Attributes:
        left, right: the factors of the products summed up.
        channels: shape in which figures per channel broadcast against the result.
        bias: what is added, or None.
    """

    left: Quantised
    right: Quantised
    channels: tuple[int, ...]
    bias: str | None = None


def rescaled(m: Matcher, product: Op, result: Value, what: Scaled, arrays: dict[str, Array]) -> list[Op]:
    """An operator that writes int32 sums, their conversion, scaling and bias: `scale (sum) + bias`."""
    sums = Value(m.model.fresh(f"{result.id}_sums"), DType.INT32, result.shape)
    floats = Value(m.model.fresh(f"{result.id}_unscaled"), DType.FLOAT32, result.shape)
    scaled = replace(result, id=m.model.fresh(f"{result.id}_unbiased")) if what.bias else result
    before, scale = _scale(m, result.id, what, arrays)
    return [
        *before,
        replace(product, outputs=(sums,)),
        Op("Cast", (sums.id,), (floats,), Attrs.of(to=DType.FLOAT32.onnx)),
        Op("Mul", (floats.id, scale), (scaled,)),
        *([Op("Add", (scaled.id, what.bias), (result,))] if what.bias else []),
    ]


def _scale(m: Matcher, stem: str, what: Scaled, arrays: dict[str, Array]) -> tuple[list[Op], str]:
    """The product of both scales: a constant, or computed from a scale found while running."""
    name, own = m.model.fresh(f"{stem}_scale"), m.model.fresh(f"{stem}_right_scale")
    right = what.right.scales(m)
    right = right.reshape(what.channels) if right.ndim else right
    if m.model.constant(what.left.scale) is not None:
        arrays[name] = (what.left.scales(m) * right).astype(np.float32)
        return [], name
    arrays[own] = right.astype(np.float32)
    return [Op("Mul", (what.left.scale, own), (Value(name, DType.FLOAT32, right.shape),))], name


def bias_array(m: Matcher, op: Op) -> Array | None:
    """The constant bias of a Conv or Gemm as real numbers in float64, None where it has none."""
    name = op.inputs[2] if len(op.inputs) > 2 else None
    if not name:
        return None
    source = m.model.producer(name)
    if source is None or source.op != "DequantizeLinear":
        return m.constant(op, 2).astype(np.float64)
    zero_point = m.constant(source, 2).astype(np.float64) if len(source.inputs) > 2 and source.inputs[2] else 0.0
    m.need(not source.attrs.get("block_size", 0), "its bias has one scale per block", source)
    real: Array = (m.constant(source, 0).astype(np.float64) - zero_point) * m.constant(source, 1).astype(np.float64)
    return real


def float_bias(m: Matcher, op: Op, shape: tuple[int, ...] | None, arrays: dict[str, Array]) -> str | None:
    """The name of the constant bias in float32, with another shape if one is given; None where it has none."""
    real = bias_array(m, op)
    if real is None:
        return None
    name = m.model.fresh(f"{op.output}_bias")
    arrays[name] = real.astype(np.float32) if shape is None else real.astype(np.float32).reshape(shape)
    return name
