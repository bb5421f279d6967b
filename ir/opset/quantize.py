"""Conversions between float and integer grids."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Trait, Unit, Work, declare
from eopt.ir.opset.shared import kept, mapped, vector, wholes


def _quantize(view: OpView) -> Work:
    """Scale, round, shift, two comparisons to saturate."""
    return vector(view, 5.0 * view.input(0).numel)


def _dequantize(view: OpView) -> Work:
    """Convert, subtract the zero point, scale."""
    y = view.outputs[0]
    return vector(view, 3.0 * y.numel, y.dtype)


def _dynamic(view: OpView) -> Work:
    """Minimum and maximum first, then as QuantizeLinear."""
    x = view.input(0)
    written = sum(tensor.nbytes for tensor in view.outputs)
    return Work(7.0 * x.numel, 2 * x.nbytes, written, Unit.VECTOR, x.dtype)


def _axes(view: OpView) -> tuple[Tie, ...]:
    """One scale for all, one per position of `axis`, or one per block of positions there."""
    x, scale, rank = view.input(0).shape, view.input(1).shape, len(view.input(0).shape)
    steering = [port for port in ("x1", "x2") if view.optional(int(port[1:]))]
    if len(scale) == rank and rank > 1:
        factors = [extent // parts if extent % parts == 0 else 0 for extent, parts in zip(x, scale, strict=True)]
        blocks = [[("x0", n, f), ("y0", n, f), *((port, n, 1) for port in steering)] for n, f in enumerate(factors)]
        return wholes(view, (mapped(*members) for members, f in zip(blocks, factors, strict=True) if f))
    if not scale or scale == (1,):
        return kept(view)
    axis = view.axis(1)
    ties = [mapped(("x0", n, 1), ("y0", n, 1)) for n in range(rank) if n != axis]
    return wholes(view, [*ties, mapped(("x0", axis, 1), ("y0", axis, 1), *((port, 0, 1) for port in steering))])


declare(["QuantizeLinear"], _quantize, _axes, (Trait.QUANTIZE,))
declare(["DequantizeLinear"], _dequantize, _axes, (Trait.DEQUANTIZE,))
declare(["QuantizeLinear"], _quantize, _axes, (Trait.QUANTIZE,), "com.microsoft")
declare(["DequantizeLinear"], _dequantize, _axes, (Trait.DEQUANTIZE,), "com.microsoft")
declare(["DynamicQuantizeLinear"], _dynamic, traits=(Trait.QUANTIZE,))
