"""Convolutions of integers."""

from __future__ import annotations

from math import prod

import numpy as np

from eopt.ir.node import Op
from eopt.ir.types import concrete
from eopt.passes.lower_qop import epilogue, grids
from eopt.passes.lower_qop.grids import Quantised
from eopt.passes.rewrite import Array, Matcher, Replacement, rule

_BIAS_LIMIT = 2**30  # half the int32 range: leaves the other half to the products


@rule("qlinear-conv", "QuantizeLinear")
def qlinear_conv(m: Matcher, quantize: Op) -> Replacement:
    """DequantizeLinear, Conv, Relu or Clip, QuantizeLinear."""
    result = grids.quantised(m, quantize)
    tail = epilogue.tail(m, quantize, result, ("Conv",))
    conv = tail.op
    image, weight = _operands(m, conv)
    grids.need_kernel(m, conv, image, weight, result)
    arrays: dict[str, Array] = {}
    bias = _bias(m, conv, image.scales(m) * weight.scales(m), arrays)
    grids.need_room(m, conv, _terms(weight), (image, weight), _BIAS_LIMIT if bias else 0)
    operands = [
        name for item in (image, weight) for name in (item.value.id, item.scale, grids.zero_point_of(m, item, arrays))
    ]
    inputs = (*operands, result.scale, grids.zero_point_of(m, result, arrays), *([bias] if bias else []))
    lowered = Op("QLinearConv", inputs, quantize.outputs, conv.attrs, name=conv.name)
    new = epilogue.saturating(m, lowered, result, tail.bounds, arrays)
    return Replacement(grids.spent(m, tail.ops, (image, weight)), new, arrays)


@rule("conv-integer", "Conv")
def conv_integer(m: Matcher, conv: Op) -> Replacement:
    """DequantizeLinear, Conv, and a result in float."""
    image, weight = _operands(m, conv)
    grids.need_room(m, conv, _terms(weight), (image, weight))
    arrays: dict[str, Array] = {}
    channels = (-1, *[1] * (len(weight.value.shape or ()) - 2))
    scaled = epilogue.Scaled(image, weight, channels, epilogue.float_bias(m, conv, channels, arrays))
    inputs = grids.integer_inputs(m, image, weight, arrays)
    product = Op("ConvInteger", inputs, conv.outputs, conv.attrs, name=conv.name)
    new = epilogue.rescaled(m, product, m.model.value(conv.output), scaled, arrays)
    return Replacement(grids.spent(m, [conv], (image, weight)), new, arrays)


def _operands(m: Matcher, conv: Op) -> tuple[Quantised, Quantised]:
    """Image and filters; filters may have a scale for each output channel."""
    image, weight = grids.dequantised(m, conv, 0), grids.dequantised(m, conv, 1)
    m.need(image.axis is None, "its image has a scale per channel", image.op)
    m.need(weight.axis in (None, 0), f"its filters have scales along axis {weight.axis}, not 0", weight.op)
    return image, weight


def _terms(weight: Quantised) -> int | None:
    """Products that one sum takes up."""
    shape = concrete(weight.value.shape)
    return None if shape is None else prod(shape[1:])


def _bias(m: Matcher, conv: Op, scales: Array, arrays: dict[str, Array]) -> str | None:
    """The bias as int32 in units of the sums, which it is rounded to: far below a step of the output."""
    real = epilogue.bias_array(m, conv)
    if real is None:
        return None
    integers = np.rint(real / scales)
    m.need(np.abs(integers).max(initial=0) <= _BIAS_LIMIT, "its bias leaves int32 in units of the sums", conv)
    source = m.model.producer(conv.inputs[2] or "")
    stored = source.inputs[0] or "" if source is not None and source.op == "DequantizeLinear" else ""
    kept = m.model.constant(stored)
    if kept is not None and kept.dtype == np.int32 and np.array_equal(kept, integers):
        return stored
    name = m.model.fresh(f"{conv.inputs[2]}_q")
    arrays[name] = integers.astype(np.int32)
    return name
