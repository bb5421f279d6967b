"""Operators that copy or rearrange: no arithmetic, all traffic."""

from __future__ import annotations

from eopt.ir.ops import OpView, Role, Tie, Trait, Unit, Work, declare, no_axes, traffic


def _copy(view: OpView) -> Work:
    """Reads what it writes: slices, gathers and expansions do not touch the rest of their source."""
    written = sum(tensor.nbytes for tensor in view.outputs)
    steering = sum(tensor.nbytes for tensor in view.inputs[1:] if tensor)
    source = view.input(0)
    return Work(0.0, min(written, source.nbytes) + steering, written, Unit.MOVE, view.outputs[0].dtype)


def _all(view: OpView) -> Work:
    read, written = traffic(view)
    return Work(0.0, read, written, Unit.MOVE, view.outputs[0].dtype)


def _gather(view: OpView) -> Work:
    y, indices = view.outputs[0], view.input(1)
    return Work(0.0, y.nbytes + indices.nbytes, y.nbytes, Unit.MOVE, y.dtype)


def _scatter(view: OpView) -> Work:
    """Copies the data once and writes the updates over it."""
    data, updates = view.input(0), view.input(2)
    indices = view.input(1)
    return Work(0.0, data.nbytes + updates.nbytes + indices.nbytes, data.nbytes, Unit.MOVE, data.dtype)


def _resize(view: OpView) -> Work:
    """Linear interpolation takes about eight operations an output element, nearest none worth counting."""
    y, x = view.outputs[0], view.input(0)
    per_element = 0 if view.attrs.get("mode", "nearest") == "nearest" else 8
    return Work(float(per_element * y.numel), x.nbytes, y.nbytes, Unit.VECTOR if per_element else Unit.MOVE, y.dtype)


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


def _split_axes(view: OpView) -> tuple[Tie, ...]:
    ports = [f"y{number}" for number in range(len(view.outputs))]
    return _joined_axes("x0", ports, len(view.input(0).shape), view.axis(0))


def _gather_axes(view: OpView) -> tuple[Tie, ...]:
    data, indices = view.input(0), view.input(1)
    axis, width = view.axis(0), len(indices.shape)
    ties = [Tie((("x0", n, 1), ("y0", n, 1)), Role.MAP) for n in range(axis)]
    ties += [Tie((("x1", n, 1), ("y0", axis + n, 1)), Role.MAP) for n in range(width)]
    ties += [Tie((("x0", n, 1), ("y0", n + width - 1, 1)), Role.MAP) for n in range(axis + 1, len(data.shape))]
    return (*ties, Tie((("x0", axis, 1),), Role.WHOLE))


_LAYOUT = (Trait.LAYOUT,)
declare(["Transpose"], _all, _transpose_axes, _LAYOUT)
declare(["Concat"], _all, _concat_axes, _LAYOUT)
declare(["Split"], _all, _split_axes, _LAYOUT)
_PARTS = "Slice Expand Tile Pad Trilu DepthToSpace SpaceToDepth ReverseSequence Compress"
declare(_PARTS.split(), _copy, no_axes, _LAYOUT)
declare(["Gather"], _gather, _gather_axes, _LAYOUT)
declare(["GatherElements", "GatherND"], _gather, traits=_LAYOUT)
declare(["ScatterElements", "ScatterND", "Scatter", "TensorScatter"], _scatter, traits=_LAYOUT)
declare(["OneHot", "NonZero", "Unique"], _all, traits=_LAYOUT)
declare(["Resize", "Upsample"], _resize, traits=_LAYOUT)
declare(["QLinearConcat"], _all, traits=_LAYOUT, domain="com.microsoft")
