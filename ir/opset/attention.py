"""Fused attention: scores stay on chip, so traffic is queries, keys, values and the result.

Flops are 2 h s t d for the scores and the same for the weighted sum (https://arxiv.org/abs/2205.14135), with h query
heads, s queries, t keys, d the head size; a causal mask leaves s t - s (s - 1) / 2 pairs when the queries are the last
s of t positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from eopt.ir.ops import OpView, Tensor, Trait, Unit, Work, declare

_SOFTMAX = 14  # operations per score, see reduce.py


@dataclass(frozen=True)
class _Problem:
    batch: int
    heads: int
    queries: int
    keys: int
    head_size: int
    value_size: int

    def flops(self, causal: bool) -> float:
        """Both products and the softmax between them."""
        pairs = self.queries * self.keys
        if causal and self.queries <= self.keys:
            pairs -= self.queries * (self.queries - 1) // 2
        per_pair = 2 * (self.head_size + self.value_size) + _SOFTMAX
        return float(self.batch * self.heads * pairs * per_pair)


def _attention(view: OpView) -> Work:
    q, k, v = view.input(0), view.input(1), view.input(2)
    past = view.inputs[4] if len(view.inputs) > 4 else None
    problem = _problem(q, k, v, past, view.attrs.get("q_num_heads", 0), view.attrs.get("kv_num_heads", 0))
    return _fused(view, problem, bool(view.attrs.get("is_causal", 0)), q)


def _multi_head(view: OpView) -> Work:
    q = view.input(0)
    k = view.inputs[1] or q
    heads = int(view.attrs["num_heads"])
    keys = k.shape[2] if len(k.shape) == 4 else k.shape[1]
    size = q.shape[-1] // heads
    problem = _Problem(q.shape[0], heads, q.shape[1], keys, size, size)
    return _fused(view, problem, bool(view.attrs.get("unidirectional", 0)), q)


def _packed(view: OpView) -> Work:
    """com.microsoft.Attention projects its input with a weight of shape (hidden, 3 hidden) first."""
    x, weight = view.input(0), view.input(1)
    heads = int(view.attrs["num_heads"])
    size = weight.shape[1] // 3 // heads
    problem = _Problem(x.shape[0], heads, x.shape[1], x.shape[1], size, size)
    work = _fused(view, problem, bool(view.attrs.get("unidirectional", 0)), x)
    projection = 2.0 * x.numel * weight.shape[1]
    return Work(work.flops + projection, work.read_bytes, work.write_bytes, Unit.MATRIX, x.dtype)


def _grouped_query(view: OpView) -> Work:
    q = view.input(0)
    past = view.inputs[3] if len(view.inputs) > 3 else None
    heads, kv_heads = int(view.attrs["num_heads"]), int(view.attrs["kv_num_heads"])
    packed = view.inputs[1] is None
    size = q.shape[-1] // (heads + 2 * kv_heads if packed else heads)
    keys = q.shape[1] + (past.shape[2] if past else 0)
    problem = _Problem(q.shape[0], heads, q.shape[1], keys, size, size)
    return _fused(view, problem, True, q)


def _problem(q: Tensor, k: Tensor, v: Tensor, past: Tensor | None, q_heads: int, kv_heads: int) -> _Problem:
    earlier = past.shape[2] if past else 0
    if len(q.shape) == 4:
        return _Problem(q.shape[0], q.shape[1], q.shape[2], k.shape[2] + earlier, q.shape[3], v.shape[3])
    sizes = q.shape[2] // q_heads, v.shape[2] // kv_heads
    return _Problem(q.shape[0], q_heads, q.shape[1], k.shape[1] + earlier, *sizes)


def _fused(view: OpView, problem: _Problem, causal: bool, q: Tensor) -> Work:
    read = sum(tensor.nbytes for tensor in view.inputs if tensor)
    return Work(problem.flops(causal), read, view.outputs[0].nbytes, Unit.MATRIX, q.dtype)


def _rotary(view: OpView) -> Work:
    """Four multiplications and two additions for every pair."""
    x = view.input(0)
    read = 2 * x.nbytes + sum(tensor.nbytes for tensor in view.inputs[1:] if tensor and not tensor.weight)
    return Work(3.0 * x.numel, read - x.nbytes, x.nbytes, Unit.VECTOR, x.dtype)


_TRAITS = (Trait.CONTRACTION,)
declare(["Attention"], _attention, traits=_TRAITS)
declare(["Attention"], _packed, traits=_TRAITS, domain="com.microsoft")
declare(["MultiHeadAttention"], _multi_head, traits=_TRAITS, domain="com.microsoft")
declare(["GroupQueryAttention"], _grouped_query, traits=_TRAITS, domain="com.microsoft")
declare(["RotaryEmbedding"], _rotary)
declare(["RotaryEmbedding"], _rotary, domain="com.microsoft")
