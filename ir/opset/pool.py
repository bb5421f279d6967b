"""Pooling: one operation per point of every window."""

from __future__ import annotations

from math import prod

from eopt.ir.ops import OpView, Tie, Trait, Work, declare
from eopt.ir.opset.shared import NEVER, Again, mapped, moved, vector, wholes


def _windowed(view: OpView) -> Work:
    """Elements of the result times points of a window."""
    y = view.outputs[0]
    return vector(view, y.numel * prod(view.attrs["kernel_shape"]), y.dtype, _overlap(view))


def _overlap(view: OpView) -> Again:
    """Windows that overlap read elements again; a window's rows of the input lie between two such uses."""
    x, y, kernel = view.input(0), view.outputs[0], view.attrs["kernel_shape"]
    if len(x.shape) != len(kernel) + 2:
        return NEVER
    again = max(0, y.numel * prod(kernel) - x.numel)
    rows = kernel[0] * prod(x.shape[3:])
    return again * x.dtype.bits / 8, rows * x.dtype.bits / 8


def _global(view: OpView) -> Work:
    """One operation per element of the input."""
    x = view.input(0)
    return vector(view, x.numel)


def _unpool(view: OpView) -> Work:
    """Writes zeros and scatters the input over them: no arithmetic."""
    return moved(view)


def _axes(view: OpView) -> tuple[Tie, ...]:
    return wholes(view, (mapped(("x0", axis, 1), ("y0", axis, 1)) for axis in range(2)))


def _channels_anywhere(view: OpView) -> tuple[Tie, ...]:
    """As `_axes`; channels are the last axis where the operator says so."""
    last = bool(view.attrs.get("channels_last", 0)) or view.op.startswith("Nhwc")
    channel = len(view.input(0).shape) - 1 if last else 1
    return wholes(view, (mapped(("x0", axis, 1), ("y0", axis, 1)) for axis in (0, channel)))


_REDUCTION = (Trait.REDUCTION,)
_MICROSOFT = "com.microsoft"
declare(["MaxPool", "AveragePool", "LpPool"], _windowed, _axes, _REDUCTION)
declare(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"], _global, _axes, _REDUCTION)
declare(["MaxUnpool"], _unpool, traits=(Trait.LAYOUT,))
declare(["QLinearGlobalAveragePool"], _global, _channels_anywhere, _REDUCTION, _MICROSOFT)
declare(["QLinearAveragePool", "NhwcMaxPool"], _windowed, _channels_anywhere, _REDUCTION, _MICROSOFT)
declare(["MaxpoolWithMask"], _windowed, _axes, _REDUCTION, _MICROSOFT)
