"""Mixtures of experts: every token goes through k of them; only the weights of experts that are met are read."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tensor, Trait, Unit, Work, declare
from eopt.ir.opset.shared import SIGMOID, SOFTMAX, matrix, vector

_MICROSOFT = "com.microsoft"
_GATED = ("swiglu", "geglu")
_SELECT = 8  # per score, as TopK


def _mixture(view: OpView) -> Work:
    """2 x tokens x k x (weights of one expert), and a softmax over the router's scores (https://arxiv.org/abs/2101.03961)."""
    up, down, extra = (2, 5, 8) if view.op == "QMoE" else (2, 4, 6)
    x, first, hidden = view.input(0), view.input(up), view.input(0).shape[-1]
    gated = view.attrs.get("activation_type", "relu") in _GATED and view.attrs.get("swiglu_fusion", 0)
    inner = first.shape[1] // (2 if gated else 1)
    third = view.optional(extra)
    per_token = 2 * hidden * (first.shape[1] + inner + (inner if third else 0))
    return _routed(view, per_token, [view.input(up), view.input(down), *([third] if third else [])], x)


def _packed(view: OpView) -> Work:
    """As MoE; gate, up and down projections are stored in blocks."""
    x, gate, up, down = view.input(0), view.input(2), view.optional(3), view.input(4)
    per_token = 2 * x.shape[-1] * gate.shape[1] * (3 if up else 2)
    return _routed(view, per_token, [gate, down, *([up] if up else [])], x)


def _routed(view: OpView, per_token: int, weights: list[Tensor], x: Tensor) -> Work:
    tokens, experts, chosen = x.numel // x.shape[-1], weights[0].shape[0], int(view.attrs.get("k", 1))
    met = min(1.0, tokens * chosen / experts)
    all_bytes = sum(tensor.nbytes for tensor in view.inputs if tensor)
    weight_bytes = sum(tensor.nbytes for tensor in weights)
    flops = float(tokens * (chosen * per_token + SOFTMAX * experts))
    read = all_bytes - (1 - met) * weight_bytes
    return Work(flops, read, view.outputs[0].nbytes, Unit.MATRIX, x.dtype)


def _router(view: OpView) -> Work:
    """A sigmoid, a bias and a selection per score; 2 m n k where it projects first."""
    projection, scores = view.optional(2), view.outputs[0]
    projected = 2.0 * view.input(0).numel * projection.shape[0] if projection else 0.0
    flops = projected + (SIGMOID + 1 + _SELECT) * scores.numel
    return matrix(view, flops) if projection else vector(view, flops)


def _projection(view: OpView) -> Work:
    """2 m n k; router and shared expert side by side."""
    x, weight = view.input(0), view.input(1)
    return matrix(view, 2.0 * x.numel * weight.shape[1], x.dtype)


declare(["MoE", "QMoE"], _mixture, domain=_MICROSOFT)
declare(["MoEPacked"], _packed, domain=_MICROSOFT)
declare(["MoEGroupRouter"], _router, domain=_MICROSOFT)
declare(["RouterGateUpProj"], _projection, traits=(Trait.CONTRACTION,), domain=_MICROSOFT)
