"""Gathers: a result's worth of the source is read, not all of it."""

from __future__ import annotations

from eopt.ir.ops import OpView, Role, Tie, Trait, Unit, Work, declare
from eopt.ir.opset.shared import mapped, moved, wholes


def _gather(view: OpView) -> Work:
    """Reads the selected elements and the indices, writes the result."""
    y, indices = view.outputs[0], view.input(1)
    return Work(0.0, y.nbytes + indices.nbytes, y.nbytes, Unit.MOVE, y.dtype)


def _all(view: OpView) -> Work:
    """Looks at everything; a result whose extent the data decide counts with the extent that is declared."""
    return moved(view)


def _compress(view: OpView) -> Work:
    """Reads the condition and what it selects."""
    y, condition = view.outputs[0], view.input(1)
    return moved(view, min(y.nbytes, view.input(0).nbytes) + condition.nbytes)


def gather_axes(view: OpView) -> tuple[Tie, ...]:
    """The gathered axis is whole, the axes of the indices take its place."""
    data, indices = view.input(0), view.input(1)
    axis, width = view.axis(0), len(indices.shape)
    ties = [Tie((("x0", n, 1), ("y0", n, 1)), Role.MAP) for n in range(axis)]
    ties += [Tie((("x1", n, 1), ("y0", axis + n, 1)), Role.MAP) for n in range(width)]
    ties += [Tie((("x0", n, 1), ("y0", n + width - 1, 1)), Role.MAP) for n in range(axis + 1, len(data.shape))]
    return (*ties, Tie((("x0", axis, 1),), Role.WHOLE))


def _elements_axes(view: OpView) -> tuple[Tie, ...]:
    """Positions of data and indices correspond where both have them all, except along `axis`."""
    data, indices, axis = view.input(0).shape, view.input(1).shape, view.axis(0)
    ties = [mapped(("x1", axis, 1), ("y0", axis, 1))]
    for n, extent in enumerate(data):
        if n != axis and extent == indices[n]:
            ties.append(mapped(("x0", n, 1), ("x1", n, 1), ("y0", n, 1)))
    return wholes(view, ties)


def gather_nd_axes(view: OpView) -> tuple[Tie, ...]:
    """Batch axes, then those of the indices but the last, then what each index leaves of the data."""
    data, indices = view.input(0).shape, view.input(1).shape
    batch, width = view.attrs.get("batch_dims", 0), len(indices) - 1
    if not 0 <= batch <= min(len(data), width):
        raise ValueError(f"batch_dims {batch} of rank {len(data)} and {width} axes of indices")
    ties = [mapped(("x0", n, 1), ("x1", n, 1), ("y0", n, 1)) for n in range(batch)]
    ties += [mapped(("x1", n, 1), ("y0", n, 1)) for n in range(batch, width)]
    first = batch + indices[-1]
    ties += [mapped(("x0", n, 1), ("y0", width + n - first, 1)) for n in range(first, len(data))]
    return wholes(view, ties)


def _one_hot_axes(view: OpView) -> tuple[Tie, ...]:
    """The new axis is whole; the others are those of the indices."""
    rank = len(view.input(0).shape)
    axis = view.axis(-1, rank + 1)
    return wholes(view, (mapped(("x0", n, 1), ("y0", n + (n >= axis), 1)) for n in range(rank)))


def _compress_axes(view: OpView) -> tuple[Tie, ...]:
    """Without `axis` the data is flattened first."""
    rank, axis = len(view.input(0).shape), view.attrs.get("axis")
    left = [n for n in range(rank) if n != axis % rank] if axis is not None else []
    return wholes(view, (mapped(("x0", n, 1), ("y0", n, 1)) for n in left))


_LAYOUT = (Trait.LAYOUT,)
declare(["Gather"], _gather, gather_axes, _LAYOUT)
declare(["GatherElements"], _gather, _elements_axes, _LAYOUT)
declare(["GatherND"], _gather, gather_nd_axes, _LAYOUT)
declare(["OneHot"], _all, _one_hot_axes, _LAYOUT)
declare(["Compress"], _compress, _compress_axes, _LAYOUT)
declare(["NonZero", "Unique"], _all, traits=_LAYOUT)
