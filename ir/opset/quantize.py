"""Conversions between float and integer grids."""

from __future__ import annotations

from eopt.ir.ops import OpView, Trait, Unit, Work, declare, traffic
from eopt.ir.opset.elementwise import broadcast_axes


def _quantize(view: OpView) -> Work:
    """Scale, round, shift, two comparisons to saturate."""
    read, written = traffic(view)
    x = view.input(0)
    return Work(5.0 * x.numel, read, written, Unit.VECTOR, x.dtype)


def _dequantize(view: OpView) -> Work:
    """Convert, subtract the zero point, scale."""
    read, written = traffic(view)
    y = view.outputs[0]
    return Work(3.0 * y.numel, read, written, Unit.VECTOR, y.dtype)


def _dynamic(view: OpView) -> Work:
    """Minimum and maximum first, then as QuantizeLinear."""
    x = view.input(0)
    written = sum(tensor.nbytes for tensor in view.outputs)
    return Work(7.0 * x.numel, 2 * x.nbytes, written, Unit.VECTOR, x.dtype)


declare(["QuantizeLinear"], _quantize, broadcast_axes, (Trait.QUANTIZE,))
declare(["DequantizeLinear"], _dequantize, broadcast_axes, (Trait.DEQUANTIZE,))
declare(["QuantizeLinear"], _quantize, broadcast_axes, (Trait.QUANTIZE,), "com.microsoft")
declare(["DequantizeLinear"], _dequantize, broadcast_axes, (Trait.DEQUANTIZE,), "com.microsoft")
declare(["DynamicQuantizeLinear"], _dynamic, traits=(Trait.QUANTIZE,))
