"""onnxruntime's blocked layout for CPUs: the operators its optimiser exchanges for convolutions and pools.

Shapes stay those of NCHW with channels rounded up to a block, so the formulas are those of the plain operators.
"""

from __future__ import annotations

from math import prod

from eopt.ir.ops import OpView, Tie, Trait, Unit, Work, declare, traffic
from eopt.ir.opset.conv import implicit_product
from eopt.ir.opset.shared import mapped, moved, vector, wholes

_DOMAIN = "com.microsoft.nchwc"


def _conv(view: OpView) -> Work:
    """2 x elements of the result x (input channels / groups) x points of the kernel."""
    x, weight, y = view.input(0), view.input(1), view.outputs[0]
    read, written = traffic(view)
    depthwise = view.attrs.get("group", 1) > 1 and weight.shape[1] == 1
    unit = Unit.VECTOR if depthwise else Unit.MATRIX
    flops = 2.0 * y.numel * prod(weight.shape[1:])
    return Work(flops, read, written, unit, x.dtype, *implicit_product(x, weight, y))


def _windowed(view: OpView) -> Work:
    """Elements of the result times points of a window."""
    y = view.outputs[0]
    return vector(view, y.numel * prod(view.attrs["kernel_shape"]), y.dtype)


def _global(view: OpView) -> Work:
    """One operation per element of the input."""
    return vector(view, view.input(0).numel)


def _reorder(view: OpView) -> Work:
    """Reads and writes everything once."""
    return moved(view)


def _upsample(view: OpView) -> Work:
    """8 operations per element for linear interpolation, none for nearest."""
    per_element = 0 if view.attrs.get("mode", "nearest") == "nearest" else 8
    return vector(view, per_element * view.outputs[0].numel)


def _images(view: OpView) -> tuple[Tie, ...]:
    """Channels lie in blocks; only images are independent."""
    return wholes(view, [mapped(("x0", 0, 1), ("y0", 0, 1))])


declare(["Conv"], _conv, _images, (Trait.CONTRACTION,), _DOMAIN)
declare(["MaxPool", "AveragePool"], _windowed, _images, (Trait.REDUCTION,), _DOMAIN)
declare(["GlobalMaxPool", "GlobalAveragePool"], _global, _images, (Trait.REDUCTION,), _DOMAIN)
declare(["ReorderInput", "ReorderOutput"], _reorder, _images, (Trait.LAYOUT,), _DOMAIN)
declare(["Upsample"], _upsample, _images, (Trait.LAYOUT,), _DOMAIN)
