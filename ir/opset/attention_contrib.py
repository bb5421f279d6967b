"""Attention of onnxruntime over queries, keys and values that are given; where lengths are data, their bound counts."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tensor, Tie, Trait, Unit, Work, declare
from eopt.ir.opset.attention import Problem, fused
from eopt.ir.opset.shared import mapped, wholes

_MICROSOFT = "com.microsoft"


def _multi_head(view: OpView) -> Work:
    """2 h s t (d + dv) and 14 per score; keys in a cache count."""
    q = view.input(0)
    if len(q.shape) == 5:  # queries, keys and values packed: (batch, positions, heads, 3, size)
        problem = Problem(q.shape[0], q.shape[2], q.shape[1], q.shape[1], q.shape[4], q.shape[4])
        return fused(view, problem, bool(view.attrs.get("unidirectional", 0)), q)
    k, v, past = view.optional(1) or q, view.optional(2), view.optional(6 if view.op == "MultiHeadAttention" else 5)
    heads = int(view.attrs["num_heads"])
    own = k.shape[2] if len(k.shape) == 4 else k.shape[1]
    shared = bool(view.attrs.get("past_present_share_buffer", 0))
    keys = max(own, past.shape[2]) if past and shared else own + (past.shape[2] if past else 0)
    size = q.shape[-1] // heads
    value_size = v.shape[-1] // (1 if len(v.shape) == 4 else heads) if v else size
    problem = Problem(q.shape[0], heads, q.shape[1], keys, size, value_size)
    return fused(view, problem, bool(view.attrs.get("unidirectional", 0)), q)


def _grouped_query(view: OpView) -> Work:
    """2 h s t (d + dv) and 14 per score, causal; of a cache that is written in place the new positions are written."""
    q, past = view.input(0), view.optional(3)
    heads, kv_heads = int(view.attrs["num_heads"]), int(view.attrs["kv_num_heads"])
    packed = view.optional(1) is None
    size = q.shape[-1] // (heads + 2 * kv_heads if packed else heads)
    keys = q.shape[1] + (past.shape[2] if past else 0)
    window = view.attrs.get("local_window_size", -1)
    work = fused(view, Problem(q.shape[0], heads, q.shape[1], keys, size, size, max(0, window)), True, q)
    new = 2 * q.shape[0] * q.shape[1] * kv_heads * size * q.dtype.bits / 8
    in_place = past is not None and len(view.outputs) > 1 and view.outputs[1].shape == past.shape
    written = view.outputs[0].nbytes + (new if in_place else sum(tensor.nbytes for tensor in view.outputs[1:]))
    return Work(work.flops, work.read_bytes, written, work.unit, work.dtype, work.reread_bytes, work.held_bytes)


def _packed_tokens(view: OpView) -> Work:
    """Tokens without padding, each against the longest sequence: a bound on 2 h s t (d + dv)."""
    q, offsets = view.input(0), view.input(4)
    heads, v = int(view.attrs["num_heads"]), view.optional(2)
    size = q.shape[3 if len(q.shape) == 4 else 1] // (1 if len(q.shape) == 4 else heads)
    problem = Problem(1, heads, q.shape[0], offsets.shape[1], size, v.shape[1] // heads if v else size)
    return fused(view, problem, False, q)


def _paged(view: OpView) -> Work:
    """Tokens against all pages of their sequence's table, a bound; of the cache these pages are read."""
    q, cache, table = view.input(0), view.input(3), view.input(7)
    heads, kv_heads = int(view.attrs["num_heads"]), int(view.attrs["kv_num_heads"])
    size = q.shape[-1] // (heads if view.optional(1) else heads + 2 * kv_heads)
    pages = min(table.numel, cache.shape[0])
    keys = cache.numel // cache.shape[0] // (kv_heads * size) * table.shape[-1]
    window = max(0, view.attrs.get("local_window_size", -1))
    problem = Problem(1, heads, q.shape[0], keys, size, size, window)
    given = sum(tensor.nbytes for n, tensor in enumerate(view.inputs) if tensor and n not in (3, 4))
    read = given + 2 * pages / cache.shape[0] * cache.nbytes
    written = view.outputs[0].nbytes + 2 * q.shape[0] * kv_heads * size * cache.dtype.bits / 8
    return Work(problem.flops(False), read, written, Unit.MATRIX, q.dtype, *problem.again(q.dtype.bits))


def _block_sparse(view: OpView) -> Work:
    """As GroupQueryAttention over the blocks of the layout alone (https://arxiv.org/abs/2404.14219), a bound."""
    q, past, columns = view.input(0), view.input(3), view.input(6)
    heads, kv_heads = int(view.attrs["num_heads"]), int(view.attrs["kv_num_heads"])
    size = q.shape[-1] // (heads if view.optional(1) else heads + 2 * kv_heads)
    keys, block = past.shape[2], int(view.attrs["sparse_block_size"])
    blocks_per_row = columns.shape[-1] * block // max(1, keys)
    problem = Problem(q.shape[0], heads, q.shape[1], keys, size, size, max(1, blocks_per_row) * block)
    return fused(view, problem, True, q)


def _heads_axes(view: OpView) -> tuple[Tie, ...]:
    """Batch, and key heads with the query heads that share them, where operands come apart, in three axes and alone."""
    operands: list[tuple[str, Tensor]] = [(f"x{n}", tensor) for n in range(3) if (tensor := view.optional(n))]
    lengths = {5, 6} if view.op == "GroupQueryAttention" else set()
    others = {n for n, tensor in enumerate(view.inputs) if tensor and n > 2} - lengths
    apart = len(operands) == 3 and all(len(tensor.shape) == 3 for _, tensor in operands)
    if not apart or others or len(view.outputs) > 1:
        return wholes(view, [])  # biases are packed, masks broadcast, and caches laid out in more ways than one
    operands.append(("y0", view.outputs[0]))
    heads = int(view.attrs.get("kv_num_heads", view.attrs["num_heads"]))
    counted = [("x5", 0, 1)] if lengths and view.optional(5) else []
    batch = mapped(*((port, 0, 1) for port, _ in operands), *counted)
    return wholes(view, [batch, mapped(*((port, 2, tensor.shape[2] // heads) for port, tensor in operands))])


_TRAITS = (Trait.CONTRACTION,)
declare(["MultiHeadAttention", "DecoderMaskedMultiHeadAttention"], _multi_head, _heads_axes, _TRAITS, _MICROSOFT)
declare(["GroupQueryAttention"], _grouped_query, _heads_axes, _TRAITS, _MICROSOFT)
declare(["PackedMultiHeadAttention"], _packed_tokens, traits=_TRAITS, domain=_MICROSOFT)
declare(["SparseAttention"], _block_sparse, traits=_TRAITS, domain=_MICROSOFT)
declare(["PagedAttention"], _paged, domain=_MICROSOFT)
