"""Attention of onnxruntime that projects its input to queries, keys and values first."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tensor, Trait, Work, declare
from eopt.ir.opset.attention import Problem, fused
from eopt.ir.types import DType

_MICROSOFT = "com.microsoft"
_PAST = {"Attention": 4, "DecoderMaskedSelfAttention": 4, "QAttention": 8}


def _packed(view: OpView) -> Work:
    """2 m k n for the projection, then 2 h s t (d + dv) and 14 per score; keys in a cache count."""
    x, weight = view.input(0), view.input(1)
    past = view.optional(_PAST[view.op])
    earlier = past.shape[3] if past else 0
    shared = bool(view.attrs.get("past_present_share_buffer", 0))
    keys = max(x.shape[1], earlier) if shared and past else x.shape[1] + earlier
    problem = Problem(x.shape[0], int(view.attrs["num_heads"]), x.shape[1], keys, *_sizes(view, weight.shape[1]))
    return fused(view, problem, bool(view.attrs.get("unidirectional", 0)), x, 2.0 * x.numel * weight.shape[1])


def _sizes(view: OpView, columns: int) -> tuple[int, int]:
    """Head sizes of keys and values."""
    heads, widths = int(view.attrs["num_heads"]), view.attrs.get("qkv_hidden_sizes")
    if widths:
        return widths[1] // heads, widths[2] // heads
    return columns // 3 // heads, columns // 3 // heads


def _without_padding(view: OpView) -> Work:
    """2 m k n, then each token against the longest sequence: a bound on 2 h s t (d + dv)."""
    x, weight, offsets = view.input(0), view.input(1), view.input(3)
    heads, tokens = int(view.attrs["num_heads"]), x.shape[0]
    problem = Problem(1, heads, tokens, offsets.shape[1], *_sizes(view, weight.shape[1]))
    return fused(view, problem, False, x, 2.0 * x.numel * weight.shape[1])


def _ordered(view: OpView) -> Work:
    """Three projections of 2 m k n on integers, then 2 h s t (d + dv) and 14 per score."""
    x, weights = view.input(0), [view.input(n) for n in (5, 6, 7)]
    heads = int(view.attrs["num_heads"])
    sizes = weights[1].shape[-1] // heads, weights[2].shape[-1] // heads
    problem = Problem(x.shape[0], heads, x.shape[1], x.shape[1], *sizes)
    projected = sum(2.0 * x.numel * weight.shape[-1] for weight in weights)
    work = fused(view, problem, bool(view.attrs.get("unidirectional", 0)), x, projected)
    return Work(work.flops, work.read_bytes, work.write_bytes, work.unit, DType.INT8, *problem.again(8))


def _longformer(view: OpView) -> Work:
    """Two projections of 2 m k n, then a window of 2 w + 1 keys per query (https://arxiv.org/abs/2004.05150). Tokens
    that attend globally are data and not counted."""
    ordered = view.op == "QOrderedLongformerAttention"
    x = view.input(0)
    weights: list[Tensor] = [view.input(2 if ordered else 1), view.input(8 if ordered else 4)]
    size = x.shape[2] // int(view.attrs["num_heads"])
    window = 2 * int(view.attrs["window"]) + 1
    problem = Problem(x.shape[0], int(view.attrs["num_heads"]), x.shape[1], x.shape[1], size, size, window)
    return fused(view, problem, False, x, sum(2.0 * x.numel * weight.shape[1] for weight in weights))


_TRAITS = (Trait.CONTRACTION,)
declare(_PAST, _packed, traits=_TRAITS, domain=_MICROSOFT)
declare(["PackedAttention"], _without_padding, traits=_TRAITS, domain=_MICROSOFT)
declare(["QOrderedAttention"], _ordered, traits=_TRAITS, domain=_MICROSOFT)
declare(["LongformerAttention", "QOrderedLongformerAttention"], _longformer, traits=_TRAITS, domain=_MICROSOFT)
