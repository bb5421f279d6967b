"""Operators that pick and place by index, sort and search."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.backends.torch_fx.kernels.registry import kernel

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@kernel("Gather")
def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Rows of `x` along an axis; negative indices count from the end."""
    axis = axis % x.dim()
    wrapped = torch.where(indices < 0, indices + x.shape[axis], indices).to(torch.int64)
    if axis == 0 and x.dim() == 2 and x.is_floating_point():
        return F.embedding(wrapped, x)
    picked = torch.index_select(x, axis, wrapped.reshape(-1))
    return picked.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _wrapped(indices: Tensor, extent: int) -> Tensor:
    return torch.where(indices < 0, indices + extent, indices).to(torch.int64)


@kernel("GatherElements")
def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """One index for each element of the result."""
    return torch.gather(x, axis, _wrapped(indices, x.shape[axis]))


@kernel("GatherND")
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """Index vectors in the last dim."""
    batch = x.shape[:batch_dims]
    flat_x, flat = x.reshape(-1, *x.shape[batch_dims:]), indices.reshape(-1, *indices.shape[batch_dims:])
    rows = [part[tuple(index.movedim(-1, 0).to(torch.int64))] for part, index in zip(flat_x, flat, strict=True)]
    result = torch.stack(rows)
    return result.reshape((*batch, *result.shape[1:]))


@kernel("ScatterElements", "Scatter")
def scatter_elements(x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none") -> Tensor:
    """One index for each update."""
    places = _wrapped(indices, x.shape[axis])
    if reduction == "none":
        return torch.scatter(x, axis, places, updates)
    return torch.scatter_reduce(x, axis, places, updates, _REDUCTIONS[reduction], include_self=True)


@kernel("ScatterND")
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """Index vectors in the last dim, slices as updates."""
    depth = indices.shape[-1]
    inner = x.shape[depth:]
    place = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=x.device)
    for axis in range(depth):
        place = place * x.shape[axis] + _wrapped(indices[..., axis], x.shape[axis])
    flat, rows = x.reshape(-1, inner.numel()), updates.reshape(-1, inner.numel())
    places = place.reshape(-1, 1).expand(-1, inner.numel())
    return scatter_elements(flat, places, rows, reduction=reduction).reshape(x.shape)


@kernel("TensorScatter", host=(2,))
def tensor_scatter(past: Tensor, update: Tensor, begins: list[int] | None = None, *, axis: int = -2,
                   mode: str = "linear") -> Tensor:  # fmt: skip
    """Writes each batch row of a cache from its own place on."""
    extent, count = past.shape[axis], update.shape[axis]
    rows = []
    for number, (old, new) in enumerate(zip(past, update, strict=True)):
        first = begins[number] if begins else 0
        places = torch.arange(first, first + count, device=past.device)
        inner = axis if axis < 0 else axis - 1
        rows.append(old.index_copy(inner, places % extent if mode == "circular" else places, new))
    return torch.stack(rows)


@kernel("Compress")
def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """What a mask keeps; a short mask keeps nothing behind its end."""
    x, along = (x.reshape(-1), 0) if axis is None else (x, axis)
    return x.index_select(along, torch.nonzero(condition).reshape(-1))


@kernel("NonZero")
def non_zero(x: Tensor) -> Tensor:
    """Indices, one row per dim."""
    return torch.nonzero(x).T


@kernel("TopK", host=(1,))
def top_k(x: Tensor, count: list[int] | None = None, *, k: int = 0, axis: int = -1, largest: int = 1,
          sorted: int = 1) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Sorted by value, equals by index: a stable sort, since torch.topk promises no order among equals."""
    values, places = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    kept = count[0] if count else k
    return values.narrow(axis, 0, kept), places.narrow(axis, 0, kept)


@kernel("Unique")
def unique(x: Tensor, *, axis: int | None = None, sorted: int = 1, outputs: int = 1) -> Tensor | tuple[Tensor, ...]:
    """With the first place, the inverse and the counts; in order of appearance when not sorted."""
    x = x.reshape(-1) if axis is None else x
    along = 0 if axis is None else axis % x.dim()
    values, inverse, counts = torch.unique(x, sorted=True, return_inverse=True, return_counts=True, dim=along)
    places = torch.arange(inverse.numel(), device=x.device)
    first = torch.full_like(counts, inverse.numel()).scatter_reduce(0, inverse, places, "amin")
    if not sorted:
        order = torch.argsort(first)
        rank = torch.argsort(order)
        values, first, counts = values.index_select(along, order), first[order], counts[order]
        inverse = rank[inverse]
    return values if outputs == 1 else (values, first, inverse, counts)[:outputs]


@kernel("NonMaxSuppression", host=(2, 3, 4))
def non_max_suppression(boxes: Tensor, scores: Tensor, most: list[int] | int | None = None,
                        overlap: list[float] | float | None = None, least: list[float] | float | None = None, *,
                        center_point_box: int = 0) -> Tensor:  # fmt: skip
    """Greedy, per batch and class; rows of (batch, class, box)."""
    count, limit, floor = int(_first(most) or 0), _first(overlap) or 0.0, _first(least)
    corners = _corners(boxes, center_point_box)
    rows = [
        [batch, cls, box]
        for batch in range(scores.shape[0])
        for cls in range(scores.shape[1])
        for box in _kept(corners[batch], scores[batch, cls], count, limit, floor)
    ]
    return torch.tensor(rows, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _first(value: Sequence[float] | float | None) -> float | None:
    return value[0] if isinstance(value, Sequence) else value


def _corners(boxes: Tensor, centred: int) -> Tensor:
    a, b = boxes[..., :2], boxes[..., 2:]
    if centred:
        a, b = a - b / 2, a + b / 2
    return torch.cat((torch.minimum(a, b), torch.maximum(a, b)), -1)


def _kept(boxes: Tensor, scores: Tensor, count: int, limit: float, floor: float | None) -> list[int]:
    order = torch.sort(scores, descending=True, stable=True).indices
    candidates = [int(box) for box in order if floor is None or scores[box] > floor]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    kept: list[int] = []
    for box in candidates:
        if len(kept) >= count:
            break
        low, high = torch.maximum(boxes[kept, :2], boxes[box, :2]), torch.minimum(boxes[kept, 2:], boxes[box, 2:])
        shared = (high - low).clamp(min=0).prod(-1)
        if not bool((shared > limit * (areas[kept] + areas[box] - shared)).any()):
            kept.append(box)
    return kept
