"""Fused attention: scores stay on chip, so traffic is queries, keys, values and the result.

Flops are 2 h s t d for the scores and the same for the weighted sum (https://arxiv.org/abs/2205.14135), with h query
heads, s queries, t keys, d the head size; a causal mask leaves s t - s (s - 1) / 2 pairs when the queries are the last
s of t positions. Keys and values are swept once for every block of 128 queries (Algorithm 1 there): a head's keys and
values are what a memory has to hold to serve that.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from eopt.ir.ops import OpView, Role, Tensor, Tie, Trait, Unit, Work, declare
from eopt.ir.opset.shared import SOFTMAX, TANH, TILE, Again, mapped, wholes

_SOFTCAP = TANH + 2  # division, tanh, product per score


@dataclass(frozen=True)
class Problem:
    """One attention: extents of its two products.

    Attributes:
        window: pairs a query takes part in at most, 0 for all keys.
        per_score: operations on each score besides the products.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    head_size: int
    value_size: int
    window: int = 0
    per_score: int = SOFTMAX

    def flops(self, causal: bool) -> float:
        """Both products and the softmax between them."""
        pairs = self._causal_pairs() if causal and self.queries <= self.keys else self.queries * self._reach()
        return float(self.batch * self.heads * pairs * (2 * (self.head_size + self.value_size) + self.per_score))

    def _reach(self) -> int:
        return min(self.keys, self.window) if self.window else self.keys

    def _causal_pairs(self) -> int:
        """The query at position p sees p + 1 keys, or those of its window."""
        return self._up_to(self.keys) - self._up_to(self.keys - self.queries)

    def _up_to(self, positions: int) -> int:
        short = min(positions, self._reach())
        return short * (short + 1) // 2 + (positions - short) * self._reach()

    def again(self, bits: int) -> Again:
        """Sweeps over the keys and values of a head beyond the first."""
        head = self.keys * (self.head_size + self.value_size) * bits / 8
        return self.batch * self.heads * max(0, ceil(self.queries / TILE) - 1) * head, head


def fused(view: OpView, problem: Problem, causal: bool, q: Tensor, more_flops: float = 0.0) -> Work:
    """The whole of it in one kernel; results behind the first are caches or scores and are written too."""
    read = sum(tensor.nbytes for tensor in view.inputs if tensor)
    written = sum(tensor.nbytes for tensor in view.outputs)
    flops = problem.flops(causal) + more_flops
    return Work(flops, read, written, Unit.MATRIX, q.dtype, *problem.again(q.dtype.bits))


def _attention(view: OpView) -> Work:
    """2 h s t (d + dv) for both products and 14 per score; 22 more per score under a soft cap."""
    return fused(view, problem_of(view), bool(view.attrs.get("is_causal", 0)), view.input(0))


def problem_of(view: OpView) -> Problem:
    """Extents of an ONNX Attention, packed in three axes or in four."""
    q, k, v, past = view.input(0), view.input(1), view.input(2), view.optional(4)
    earlier = past.shape[2] if past else 0
    per_score = SOFTMAX + (_SOFTCAP if view.attrs.get("softcap", 0.0) else 0)
    if len(q.shape) == 4:
        heads, keys = q.shape[1], k.shape[2] + earlier
        sizes, queries = (q.shape[3], v.shape[3]), q.shape[2]
    else:
        heads, keys = view.attrs["q_num_heads"], k.shape[1] + earlier
        sizes, queries = (q.shape[2] // heads, v.shape[2] // view.attrs["kv_num_heads"]), q.shape[1]
    return Problem(q.shape[0], heads, queries, keys, *sizes, _window(view, queries, keys), per_score)


def _window(view: OpView, queries: int, keys: int) -> int:
    """Nobody looks ahead under a causal mask, nor further than the last query, which stands at the last key."""
    left, right = view.attrs.get("left_window_size", -1), view.attrs.get("right_window_size", -1)
    if max(left, right) < 0:
        return 0
    ahead = 0 if view.attrs.get("is_causal", 0) else queries - 1
    return (left if left >= 0 else keys) + 1 + (min(right, ahead) if right >= 0 else ahead)


def _axes(view: OpView) -> tuple[Tie, ...]:
    """Batch, key heads with the query heads that share them, features of the values; queries unless order matters.

    The features of queries and keys are summed over; in three axes they lie inside the heads and cannot be named.
    """
    packed = len(view.input(0).shape) == 3
    q, k, result = view.input(0), view.input(1), view.outputs[0]
    heads, axis, rows = (view.attrs["kv_num_heads"], 2, 1) if packed else (k.shape[1], 1, 2)
    ports = [("x0", q), ("x1", k), ("x2", view.input(2)), ("y0", result)]
    caches = [(f"y{n}", view.outputs[n]) for n in (1, 2) if len(view.outputs) > n]
    caches += [(f"x{n}", cache) for n in (4, 5) if (cache := view.optional(n))]
    lengths = [("x6", 0, 1)] if view.optional(6) else []
    batch = [*((port, 0, 1) for port, _ in (*ports, *caches)), *lengths, *_mask(view, 0, 1)]
    groups = [(port, axis, tensor.shape[axis] // heads) for port, tensor in ports]
    groups += [(port, 1, tensor.shape[1] // heads) for port, tensor in caches]
    all_heads = view.attrs["q_num_heads"] if packed else q.shape[1]
    ties = [mapped(*batch), mapped(*groups, *_mask(view, 1, all_heads // heads))]
    if not view.attrs.get("is_causal", 0) and not {"left_window_size", "right_window_size"} & set(view.attrs):
        ties.append(mapped(("x0", rows, 1), ("y0", rows, 1), *_mask(view, 2, 1)))
    return wholes(view, ties if packed else [*ties, *_features(view)])


def _mask(view: OpView, axis: int, factor: int) -> list[tuple[str, int, int]]:
    """Where an axis of (batch, heads, queries, keys) is in the mask, unless it is broadcast."""
    mask = view.optional(3)
    own = axis - (4 - len(mask.shape)) if mask else -1
    return [("x3", own, factor)] if mask and own >= 0 and mask.shape[own] > 1 else []


def _features(view: OpView) -> tuple[Tie, Tie]:
    keys = [port for port, there in (("x4", view.optional(4)), ("y1", len(view.outputs) > 1)) if there]
    values = [port for port, there in (("x5", view.optional(5)), ("y2", len(view.outputs) > 2)) if there]
    summed = Tie((("x0", 3, 1), ("x1", 3, 1), *((port, 3, 1) for port in keys)), Role.CONTRACT)
    return summed, mapped(("x2", 3, 1), ("y0", 3, 1), *((port, 3, 1) for port in values))


declare(["Attention"], _attention, _axes, (Trait.CONTRACTION,))
