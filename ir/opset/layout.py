"""Operators that copy or rearrange: no arithmetic, all traffic."""

from __future__ import annotations

from math import prod

from eopt.ir.ops import OpView, Role, Tie, Trait, Unit, Work, declare
from eopt.ir.opset.shared import constant, kept, mapped, moved, wholes


def _copy(view: OpView) -> Work:
    """Reads what it writes: slices and expansions do not touch the rest of their source."""
    written = sum(tensor.nbytes for tensor in view.outputs)
    steering = sum(tensor.nbytes for tensor in view.inputs[1:] if tensor)
    source = view.input(0)
    return Work(0.0, min(written, source.nbytes) + steering, written, Unit.MOVE, view.outputs[0].dtype)


def _all(view: OpView) -> Work:
    """Reads and writes everything once."""
    return moved(view)


def _transpose_axes(view: OpView) -> tuple[Tie, ...]:
    rank = len(view.input(0).shape)
    perm = view.attrs.get("perm") or tuple(reversed(range(rank)))
    return tuple(Tie((("x0", source, 1), ("y0", axis, 1)), Role.MAP) for axis, source in enumerate(perm))


def _joined_axes(one: str, many: list[str], rank: int, axis: int) -> tuple[Tie, ...]:
    """Concat and Split: the joined axis is cut at offsets a single class cannot express, so it is whole."""
    whole = [Tie(((port, axis, 1),), Role.WHOLE) for port in (one, *many)]
    others = (number for number in range(rank) if number != axis)
    shared = [Tie(((one, number, 1), *((port, number, 1) for port in many)), Role.MAP) for number in others]
    return (*shared, *whole)


def _concat_axes(view: OpView) -> tuple[Tie, ...]:
    ports = [f"x{number}" for number in range(len(view.inputs))]
    return _joined_axes("y0", ports, len(view.outputs[0].shape), view.axis(0))


def _quantized_concat_axes(view: OpView) -> tuple[Tie, ...]:
    """Scale and zero point of the result come first, then (values, scale, zero point) of each operand."""
    ports = [f"x{number}" for number in range(2, len(view.inputs), 3)]
    rank = len(view.outputs[0].shape)
    return wholes(view, _joined_axes("y0", ports, rank, view.axis(0, rank)))


def _split_axes(view: OpView) -> tuple[Tie, ...]:
    ports = [f"y{number}" for number in range(len(view.outputs))]
    return wholes(view, _joined_axes("x0", ports, len(view.input(0).shape), view.axis(0)))


def _unchanged(view: OpView, untouched: bool) -> tuple[Tie, ...]:
    """Axes that keep their extent map one to one, if that says that they are untouched."""
    x, y = view.input(0).shape, view.outputs[0].shape
    shift = len(y) - len(x)
    same = [axis for axis in range(len(x)) if untouched and shift >= 0 and x[axis] == y[axis + shift]]
    return wholes(view, (mapped(("x0", axis, 1), ("y0", axis + shift, 1)) for axis in same))


def _repeated_axes(view: OpView) -> tuple[Tie, ...]:
    """Expand and Tile leave alone what they do not enlarge."""
    return _unchanged(view, True)


def _slice_axes(view: OpView) -> tuple[Tie, ...]:
    """A slice of full extent that runs forwards is the axis itself."""
    steps = view.optional(4)
    return _unchanged(view, steps is None or all(step > 0 for step in constant(steps) or (-1,)))


def _pad_axes(view: OpView) -> tuple[Tie, ...]:
    """Axes without padding on either side; -1 and 1 would keep the extent and shift the rest."""
    rank, given = len(view.input(0).shape), view.optional(1)
    pads = constant(given) if given else view.attrs.get("pads") or view.attrs.get("paddings")
    axes, chosen = view.optional(3), range(rank)
    if pads is None or (axes and axes.const is None):
        return wholes(view, ())
    if axes:
        chosen = [int(axis) % rank for axis in constant(axes) or ()]  # type: ignore[assignment]
    padded = {axis for n, axis in enumerate(chosen) if pads[n] or pads[n + len(chosen)]}
    return kept(view, padded)


def _crop_axes(view: OpView) -> tuple[Tie, ...]:
    """What has the wanted extent already is neither cropped nor padded."""
    return _unchanged(view, True)


def _triangle_axes(view: OpView) -> tuple[Tie, ...]:
    return kept(view, (-1, -2))


def _reversed_axes(view: OpView) -> tuple[Tie, ...]:
    """Sequences map one to one together with their lengths; time is mixed."""
    rank = len(view.input(0).shape)
    time, batch = view.attrs.get("time_axis", 0) % rank, view.attrs.get("batch_axis", 1) % rank
    ties = [mapped(("x0", n, 1), ("y0", n, 1)) for n in range(rank) if n not in (time, batch)]
    return wholes(view, [*ties, mapped(("x0", batch, 1), ("x1", 0, 1), ("y0", batch, 1))])


def _block_axes(view: OpView) -> tuple[Tie, ...]:
    """A position of the small grid is a block of the large one; channels are taken apart except in mode CRD, where
    those of one result lie together."""
    size, deep_first = view.attrs["blocksize"], view.op == "DepthToSpace"
    small, large = ("x0", "y0") if deep_first else ("y0", "x0")
    ties = [mapped(("x0", 0, 1), ("y0", 0, 1))]
    ties += [mapped((small, axis, 1), (large, axis, size)) for axis in (2, 3)]
    if view.attrs.get("mode", "DCR") == "CRD":
        ties.append(mapped((small, 1, size * size), (large, 1, 1)))
    return wholes(view, ties)


def _columns_axes(view: OpView) -> tuple[Tie, ...]:
    """Col2Im: the blocks of a channel lie together; blocks overlap in the image."""
    block, batch = constant(view.input(2)), mapped(("x0", 0, 1), ("y0", 0, 1))
    return wholes(view, [batch, mapped(("x0", 1, int(prod(block))), ("y0", 1, 1))] if block else [batch])


def _overlapping(view: OpView) -> Work:
    """Col2Im adds every element of every block to the image."""
    read = sum(tensor.nbytes for tensor in view.inputs if tensor)
    x, y = view.input(0), view.outputs[0]
    return Work(float(x.numel), read, y.nbytes, Unit.VECTOR, x.dtype)


def _unfold_axes(view: OpView) -> tuple[Tie, ...]:
    """Windows along `dim`; the points of a window become a new last axis."""
    rank = len(view.input(0).shape)
    dim = view.attrs.get("dim", -1) % rank
    return wholes(view, (mapped(("x0", n, 1), ("y0", n, 1)) for n in range(rank) if n != dim))


_LAYOUT = (Trait.LAYOUT,)
_MICROSOFT = "com.microsoft"
declare(["Transpose"], _all, _transpose_axes, _LAYOUT)
declare(["Concat"], _all, _concat_axes, _LAYOUT)
declare(["Split"], _all, _split_axes, _LAYOUT)
declare(["Slice"], _copy, _slice_axes, _LAYOUT)
declare(["Expand", "Tile"], _copy, _repeated_axes, _LAYOUT)
declare(["Pad"], _copy, _pad_axes, _LAYOUT)
declare(["CenterCropPad"], _copy, _crop_axes, _LAYOUT)
declare(["Trilu"], _copy, _triangle_axes, _LAYOUT)
declare(["ReverseSequence"], _copy, _reversed_axes, _LAYOUT)
declare(["DepthToSpace", "SpaceToDepth"], _copy, _block_axes, _LAYOUT)
declare(["Col2Im"], _overlapping, _columns_axes, _LAYOUT)
declare(["QLinearConcat"], _all, _quantized_concat_axes, _LAYOUT, _MICROSOFT)
declare(["Pad"], _copy, _pad_axes, _LAYOUT, _MICROSOFT)
declare(["Trilu"], _copy, _triangle_axes, _LAYOUT, _MICROSOFT)
declare(["UnfoldTensor"], _copy, _unfold_axes, _LAYOUT, _MICROSOFT)
