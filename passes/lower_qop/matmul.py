"""Matrix products of integers."""

from __future__ import annotations

from dataclasses import replace

from eopt.ir.node import Op
from eopt.passes.lower_qop import epilogue, grids
from eopt.passes.lower_qop.grids import Quantised
from eopt.passes.rewrite import Array, Matcher, Replacement, rule


@rule("qlinear-matmul", "QuantizeLinear")
def qlinear_matmul(m: Matcher, quantize: Op) -> Replacement:
    """DequantizeLinear, MatMul or Gemm without bias, Relu or Clip, QuantizeLinear."""
    result = grids.quantised(m, quantize)
    tail = epilogue.tail(m, quantize, result, ("MatMul", "Gemm"))
    product = tail.op
    m.need(product.op == "MatMul" or len(product.inputs) == 2, "QLinearMatMul adds no bias", product)
    arrays: dict[str, Array] = {}
    left, right = _operands(m, product, arrays)
    grids.need_kernel(m, product, left, right, result)
    rank = len(right.value.shape or ())
    m.need(right.axis is None or rank == 2, "a scale per column is for matrices", right.op)
    operands = [name for item in (left, right, result) for name in (item.scale, grids.zero_point_of(m, item, arrays))]
    inputs = (left.value.id, *operands[:2], right.value.id, *operands[2:])
    lowered = Op("QLinearMatMul", inputs, quantize.outputs, name=product.name)
    new = epilogue.saturating(m, lowered, result, tail.bounds, arrays)
    return Replacement(grids.spent(m, tail.ops, (left, right)), new, arrays)


@rule("matmul-integer", "MatMul", "Gemm")
def matmul_integer(m: Matcher, op: Op) -> Replacement:
    """DequantizeLinear, MatMul or Gemm, and a result in float. The scale on the left may be found while running."""
    arrays: dict[str, Array] = {}
    left, right = _operands(m, op, arrays)
    bias = epilogue.float_bias(m, op, None, arrays) if op.op == "Gemm" else None
    inputs = grids.integer_inputs(m, left, right, arrays)
    product = Op("MatMulInteger", inputs, op.outputs, name=op.name)
    scaled = epilogue.Scaled(left, right, (-1,), bias)
    new = epilogue.rescaled(m, product, m.model.value(op.output), scaled, arrays)
    return Replacement(grids.spent(m, [op], (left, right)), new, arrays)


def _operands(m: Matcher, op: Op, arrays: dict[str, Array]) -> tuple[Quantised, Quantised]:
    """Both factors, the right one as MatMul reads it, with one scale or one for each column."""
    scaled = op.attrs.get("alpha", 1.0) != 1.0 or op.attrs.get("beta", 1.0) != 1.0
    m.need(not scaled, "its alpha or beta is not 1", op)
    m.need(not op.attrs.get("transA", 0), "its left operand is transposed", op)
    left, right = grids.dequantised(m, op, 0), grids.dequantised(m, op, 1)
    if op.attrs.get("transB", 0):
        right = _transposed(m, right, arrays)
    m.need(left.axis is None, "its left operand has several scales", left.op)
    shape = right.value.shape or ()
    columns = right.axis is None or right.axis == len(shape) - 1 > 0
    m.need(columns, f"its right operand has scales along axis {right.axis}, not one for each column", right.op)
    terms = shape[-2] if len(shape) > 1 else shape[0] if shape else None
    grids.need_room(m, op, terms if isinstance(terms, int) else None, (left, right))
    return left, right


def _transposed(m: Matcher, item: Quantised, arrays: dict[str, Array]) -> Quantised:
    """A constant matrix stored the other way round."""
    array = m.constant(item.op, 0)
    name = m.model.fresh(f"{item.value.id}_transposed")
    arrays[name] = array.T.copy()
    value = replace(item.value, id=name, shape=array.T.shape)
    return replace(item, value=value, axis=None if item.axis is None else 1 - item.axis)
