"""Convolutions. Flops are 2 x outputs x (input channels / groups) x kernel points."""

from __future__ import annotations

from math import prod

from eopt.ir.ops import OpView, Role, Tie, Trait, Unit, Work, declare, traffic
from eopt.ir.types import DType


def _filter_port(view: OpView) -> int:
    return 3 if view.op == "QLinearConv" else 1


def _conv(view: OpView) -> Work:
    x, weight = view.input(0), view.input(_filter_port(view))
    read, written = traffic(view)
    flops = 2.0 * view.outputs[0].numel * prod(weight.shape[1:])
    dtype = x.dtype if x.dtype.is_float else DType.INT8
    return Work(flops, read, written, _unit(view, weight.shape), dtype)


def _unit(view: OpView, weight: tuple[int, ...]) -> Unit:
    """A depthwise kernel reduces over a few points only: no tile for a matrix unit, so vector units do it."""
    return Unit.VECTOR if view.attrs.get("group", 1) > 1 and weight[1] == 1 else Unit.MATRIX


def _conv_transpose(view: OpView) -> Work:
    """Every input element is multiplied with the whole kernel of its group."""
    x, weight = view.input(0), view.input(1)
    read, written = traffic(view)
    return Work(2.0 * x.numel * prod(weight.shape[1:]), read, written, Unit.MATRIX, x.dtype)


def _axes(view: OpView) -> tuple[Tie, ...]:
    port = _filter_port(view)
    x, weight, y = view.input(0), view.input(port), view.outputs[0]
    group = view.attrs.get("group", 1)
    bias_port = 8 if port == 3 else 2
    bias = [(f"x{bias_port}", 0, 1)] if len(view.inputs) > bias_port and view.inputs[bias_port] else []
    ties = [Tie((("x0", 0, 1), ("y0", 0, 1)), Role.MAP)]
    ties += [Tie(((side, axis, 1),), Role.WHOLE) for side in ("x0", "y0") for axis in range(2, len(x.shape))]
    ties += [Tie(((f"x{port}", axis, 1),), Role.WHOLE) for axis in range(2, len(weight.shape))]
    outputs = [(f"x{port}", 0, 1), ("y0", 1, 1), *bias]
    if group == 1:
        ties.append(Tie(tuple(outputs), Role.MAP))
        ties.append(Tie((("x0", 1, 1), (f"x{port}", 1, 1)), Role.CONTRACT))
        return tuple(ties)
    # One position of the class is a group: its input channels and its output channels go together.
    per_in, per_out = x.shape[1] // group, y.shape[1] // group
    members = [("x0", 1, per_in), *((name, axis, per_out) for name, axis, _ in outputs)]
    ties.append(Tie(tuple(members), Role.MAP))
    ties.append(Tie(((f"x{port}", 1, 1),), Role.WHOLE))
    return tuple(ties)


declare(["Conv", "ConvInteger", "QLinearConv"], _conv, _axes, (Trait.CONTRACTION,))
declare(["ConvTranspose"], _conv_transpose, traits=(Trait.CONTRACTION,))
declare(["FusedConv", "NhwcConv", "NhwcFusedConv"], _conv, traits=(Trait.CONTRACTION,), domain="com.microsoft")
