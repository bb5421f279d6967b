"""Causal depthwise convolution over time that carries its last inputs from one call to the next."""

from __future__ import annotations

from math import prod

from eopt.ir.ops import OpView, Tie, Work, declare
from eopt.ir.opset.shared import SIGMOID, mapped, vector, wholes

_MICROSOFT = "com.microsoft"


def _work(view: OpView) -> Work:
    """2 k operations per element for a kernel of k points, 13 more for a SiLU behind it."""
    weight, y = view.input(1), view.outputs[0]
    activated = view.attrs.get("activation", "none") not in ("none", "")
    per_element = 2 * prod(weight.shape[2:] or weight.shape[-1:]) + (SIGMOID + 1 if activated else 0)
    return vector(view, per_element * y.numel)


def _axes(view: OpView) -> tuple[Tie, ...]:
    """Batch and channels are independent; time is mixed."""
    states = [port for port, there in (("x3", view.optional(3)), ("y1", len(view.outputs) > 1)) if there]
    bias = [("x2", 0, 1)] if view.optional(2) else []
    batch = mapped(*((port, 0, 1) for port in ("x0", "y0", *states)))
    channels = mapped(("x1", 0, 1), *bias, *((port, 1, 1) for port in ("x0", "y0", *states)))
    return wholes(view, [batch, channels])


declare(["CausalConvWithState"], _work, _axes)
declare(["CausalConvWithState", "VarlenCausalConvWithState"], _work, domain=_MICROSOFT)
