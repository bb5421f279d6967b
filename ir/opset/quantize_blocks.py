"""Conversions of onnxruntime to tiled orders of 8-bit values and to block floating point."""

from __future__ import annotations

from eopt.ir.ops import OpView, Trait, Work, declare
from eopt.ir.opset.shared import vector

_MICROSOFT = "com.microsoft"


def _quantize(view: OpView) -> Work:
    """Scale, round, shift, two comparisons to saturate."""
    return vector(view, 5 * view.input(0).numel)


def _dequantize(view: OpView) -> Work:
    """Convert, shift, scale."""
    y = view.outputs[0]
    return vector(view, 3 * y.numel, y.dtype)


def _block_quantize(view: OpView) -> Work:
    """The largest magnitude of a block first (2 per element), then as QuantizeWithOrder."""
    return vector(view, 7 * view.input(0).numel)


declare(["QuantizeWithOrder"], _quantize, traits=(Trait.QUANTIZE,), domain=_MICROSOFT)
declare(["DequantizeWithOrder", "DequantizeBFP"], _dequantize, traits=(Trait.DEQUANTIZE,), domain=_MICROSOFT)
declare(["QuantizeBFP"], _block_quantize, traits=(Trait.QUANTIZE,), domain=_MICROSOFT)
