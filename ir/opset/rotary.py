"""Rotary position embeddings: every pair of features is turned by the angle of its position."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Unit, Work, declare
from eopt.ir.opset.shared import mapped, vector, wholes

_MICROSOFT = "com.microsoft"


def _rotary(view: OpView) -> Work:
    """Four multiplications and two additions for every pair (https://arxiv.org/abs/2104.09864, equation 34)."""
    x = view.input(0)
    read = x.nbytes + sum(tensor.nbytes for tensor in view.inputs[1:] if tensor and not tensor.weight)
    return Work(3.0 * x.numel, read, x.nbytes, Unit.VECTOR, x.dtype)


def _both(view: OpView) -> Work:
    """Sine and cosine of every angle (40), then two products and a sum per element of queries and keys."""
    return vector(view, 40 * view.input(0).numel + 3 * sum(tensor.numel for tensor in view.outputs))


def _axes(view: OpView) -> tuple[Tie, ...]:
    """Batch and heads; positions are mixed where their angles come in order and not by number."""
    ids = view.optional(3)
    batch = [("x0", 0, 1), ("y0", 0, 1)]
    if ids is None:
        batch += [("x1", 0, 1), ("x2", 0, 1)] if len(view.input(1).shape) == 3 else []
        ties = [mapped(*batch)]
    else:
        position = len(view.input(0).shape) - 2
        ties = [mapped(*batch, ("x3", 0, 1)), mapped(("x0", position, 1), ("x3", 1, 1), ("y0", position, 1))]
    if len(view.input(0).shape) == 4:
        return wholes(view, [*ties, mapped(("x0", 1, 1), ("y0", 1, 1))])
    heads = view.attrs.get("num_heads", 0)
    width = view.input(0).shape[2] // heads if heads else 0
    return wholes(view, [*ties, mapped(("x0", 2, width), ("y0", 2, width))] if width else ties)


declare(["RotaryEmbedding"], _rotary, _axes)
declare(["RotaryEmbedding", "MRotaryEmbedding"], _rotary, domain=_MICROSOFT)
declare(["GemmaRotaryEmbedding"], _both, domain=_MICROSOFT)
