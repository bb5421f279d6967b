"""Deformable convolution: a convolution over values that are interpolated where offsets point."""

from __future__ import annotations

from math import prod

from eopt.ir.ops import OpView, Role, Tie, Trait, Unit, Work, declare, traffic
from eopt.ir.opset.conv import implicit_product
from eopt.ir.opset.shared import mapped, wholes

_INTERPOLATE, _WEIGHTS = 7, 8  # four products and three sums per value; place and weights per point and offset group


def _work(view: OpView) -> Work:
    """The convolution, plus bilinear interpolation of every value it reads: 7 operations, one more with a mask, and 8
    per point and offset group for the weights (https://arxiv.org/abs/1811.11168, equation 1)."""
    x, weight, y = view.input(0), view.input(1), view.outputs[0]
    points = prod(weight.shape[2:]) * y.shape[0] * prod(y.shape[2:])
    sampled = points * x.shape[1] * (_INTERPOLATE + (1 if view.optional(4) else 0))
    placed = points * view.attrs.get("offset_group", 1) * _WEIGHTS
    read, written = traffic(view)
    flops = 2.0 * y.numel * prod(weight.shape[1:]) + sampled + placed
    return Work(flops, read, written, Unit.MATRIX, x.dtype, *implicit_product(x, weight, y))


def _axes(view: OpView) -> tuple[Tie, ...]:
    """As a convolution where there is one group of channels; offsets are relative to a place, so space is mixed."""
    mask, bias = view.optional(4), view.optional(3)
    ports = ["x0", "x2", "y0", *(["x4"] if mask else [])]
    ties = [mapped(*((port, 0, 1) for port in ports))]
    if view.attrs.get("group", 1) == 1:
        ties.append(mapped(("x1", 0, 1), ("y0", 1, 1), *([("x3", 0, 1)] if bias else [])))
    if view.attrs.get("group", 1) == view.attrs.get("offset_group", 1) == 1:
        ties.append(Tie((("x0", 1, 1), ("x1", 1, 1)), Role.CONTRACT))
    return wholes(view, ties)


declare(["DeformConv"], _work, _axes, (Trait.CONTRACTION,))
