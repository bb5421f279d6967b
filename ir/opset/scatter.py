"""Scatters: the data is copied once and updates are written over it."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Trait, Unit, Work, declare
from eopt.ir.opset.shared import mapped, wholes


def _scatter(view: OpView) -> Work:
    """Reads data, updates and indices, writes the result; a reduction adds one operation per update."""
    data, indices, updates = view.input(0), view.input(1), view.input(2)
    read = data.nbytes + updates.nbytes + indices.nbytes
    flops = float(updates.numel) if view.attrs.get("reduction", "none") != "none" else 0.0
    return Work(flops, read, data.nbytes, Unit.VECTOR if flops else Unit.MOVE, data.dtype)


def _cache(view: OpView) -> Work:
    """Writes a stretch of a cache; without aliasing the rest is copied."""
    data, update, start = view.input(0), view.input(1), view.optional(2)
    read = data.nbytes + update.nbytes + (start.nbytes if start else 0.0)
    return Work(0.0, read, data.nbytes, Unit.MOVE, data.dtype)


def _elements_axes(view: OpView) -> tuple[Tie, ...]:
    """Positions correspond where indices have them all, except along `axis`."""
    data, indices, axis = view.input(0).shape, view.input(1).shape, view.axis(0)
    same = [n for n in range(len(data)) if n != axis and data[n] == indices[n]]
    return wholes(view, (mapped(*((port, n, 1) for port in ("x0", "x1", "x2", "y0"))) for n in same))


def _nd_axes(view: OpView) -> tuple[Tie, ...]:
    """What an index leaves of the data maps one to one; what it selects from is mixed."""
    rank, depth, width = len(view.input(0).shape), view.input(1).shape[-1], len(view.input(1).shape) - 1
    left = range(depth, rank)
    return wholes(view, (mapped(("x0", n, 1), ("x2", width + n - depth, 1), ("y0", n, 1)) for n in left))


def _cache_axes(view: OpView) -> tuple[Tie, ...]:
    """Everything maps one to one but the sequence; start positions belong to the batch."""
    rank, axis = len(view.input(0).shape), view.axis(-2)
    start = [("x2", 0, 1)] if view.optional(2) else []
    others = [n for n in range(rank) if n != axis]
    ports = [(("x0", n, 1), ("x1", n, 1), ("y0", n, 1)) for n in others]
    return wholes(view, (mapped(*port, *(start if n == 0 else [])) for n, port in zip(others, ports, strict=True)))


_LAYOUT = (Trait.LAYOUT,)
declare(["ScatterElements", "Scatter"], _scatter, _elements_axes, _LAYOUT)
declare(["ScatterND"], _scatter, _nd_axes, _LAYOUT)
declare(["TensorScatter"], _cache, _cache_axes, _LAYOUT)
