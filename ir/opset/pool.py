"""Pooling: one operation per point of every window."""

from __future__ import annotations

from math import prod

from eopt.ir.ops import OpView, Role, Tie, Trait, Unit, Work, declare, traffic


def _windowed(view: OpView) -> Work:
    read, written = traffic(view)
    y = view.outputs[0]
    return Work(y.numel * prod(view.attrs["kernel_shape"]), read, written, Unit.VECTOR, y.dtype)


def _global(view: OpView) -> Work:
    read, written = traffic(view)
    x = view.input(0)
    return Work(x.numel, read, written, Unit.VECTOR, x.dtype)


def _axes(view: OpView) -> tuple[Tie, ...]:
    rank = len(view.input(0).shape)
    mapped = [Tie((("x0", axis, 1), ("y0", axis, 1)), Role.MAP) for axis in range(2)]
    windows = [Tie(((port, axis, 1),), Role.WHOLE) for port in ("x0", "y0") for axis in range(2, rank)]
    return (*mapped, *windows)


declare(["MaxPool", "AveragePool", "LpPool"], _windowed, _axes, (Trait.REDUCTION,))
declare(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"], _global, _axes, (Trait.REDUCTION,))
declare(["QLinearGlobalAveragePool"], _global, traits=(Trait.REDUCTION,), domain="com.microsoft")
declare(["QLinearAveragePool"], _windowed, traits=(Trait.REDUCTION,), domain="com.microsoft")
