"""Elementwise operators of onnxruntime: fused activations, and arithmetic on quantised values."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Trait, Unit, Work, declare, traffic
from eopt.ir.opset.elementwise import broadcast_axes
from eopt.ir.opset.shared import SIGMOID, mapped, moved, vector, wholes

# Per element of the result, counted as in elementwise.py; a bias adds one, a change of grid 2 on the way in and 2 out.
PER_ELEMENT = {"Gelu": 20, "FastGelu": 20, "BiasGelu": 21, "QuickGelu": 14, "QLinearAdd": 5, "QLinearMul": 4,
         "QLinearSigmoid": 14, "QLinearLeakyRelu": 4, "QLinearWhere": 5, "QOrderedGelu": 24, "BiasAdd": 2,
         "BiasSplitGelu": 23, "SwiGLU": 18, "ScaledSiLU": 14, "ComplexMul": 3, "ComplexMulConj": 3, "MulInteger": 3,
         "LinearAttentionGate": 26}  # fmt: skip
_MICROSOFT = "com.microsoft"


def _work(view: OpView) -> Work:
    """By operator, per element of the result."""
    read, written = traffic(view)
    operand = view.inputs[0]
    dtype = operand.dtype if operand else view.outputs[0].dtype
    return Work(PER_ELEMENT[view.op] * view.outputs[0].numel, read, written, Unit.VECTOR, dtype)


def _dropout(view: OpView) -> Work:
    """At inference the dropout is the identity; bias and residual are added."""
    added = sum(1 for tensor in view.inputs[1:3] if tensor)
    return vector(view, added * view.outputs[0].numel)


def _identity_dropout(view: OpView) -> Work:
    """At inference a copy; the mask, one bit an element, is written when asked for."""
    return moved(view)


def _gated_add(view: OpView) -> Work:
    """A multiply-add per element; with `gate_weight`, a dot product and a sigmoid per row as well."""
    x, gate = view.input(0), view.input(2)
    rows = x.numel // x.shape[-1]
    projection = 2 * gate.numel + SIGMOID * rows if view.optional(3) else 0
    return vector(view, 2 * x.numel + projection)


def _leading_axes(view: OpView) -> tuple[Tie, ...]:
    """The last axis is split or gated; those before it map one to one on every operand of the same rank."""
    y = view.outputs[0]
    operands = [(f"x{n}", t) for n, t in enumerate(view.inputs) if t and len(t.shape) == len(y.shape)]
    fits = [(port, t.shape) for port, t in operands if t.shape[:-1] == y.shape[:-1]]
    return wholes(view, (mapped(("y0", n, 1), *((port, n, 1) for port, _ in fits)) for n in range(len(y.shape) - 1)))


_SPLIT = ("BiasSplitGelu", "SwiGLU", "ComplexMul", "ComplexMulConj")
declare([name for name in PER_ELEMENT if name not in _SPLIT], _work, broadcast_axes, (Trait.ELEMENTWISE,), _MICROSOFT)
declare(_SPLIT, _work, _leading_axes, (Trait.ELEMENTWISE,), _MICROSOFT)
declare(["BiasDropout", "BitmaskBiasDropout"], _dropout, broadcast_axes, (Trait.ELEMENTWISE,), _MICROSOFT)
declare(["BitmaskDropout"], _identity_dropout, broadcast_axes, domain=_MICROSOFT)
declare(["GatedAdd"], _gated_add, _leading_axes, (Trait.ELEMENTWISE,), _MICROSOFT)
