"""Operators that move no data: other names, shapes or host values for the same bytes."""

from __future__ import annotations

from eopt.ir.ops import OpView, Role, Tie, Trait, Unit, Work, declare, no_axes
from eopt.ir.opset.elementwise import broadcast_axes


def _nothing(view: OpView) -> Work:
    """No data moves."""
    return Work(0.0, 0.0, 0.0, Unit.NONE, view.outputs[0].dtype)


def reshape_axes(view: OpView) -> tuple[Tie, ...]:
    """Axes matched greedily from the left: blocks of equal product. A block of one axis on each side is that axis; one
    that splits or merges is tied through its outermost axes, with the inner extent as the factor (attention heads)."""
    before, after = view.input(0).shape, view.outputs[0].shape
    if 0 in before or 0 in after:
        return tuple(Tie((("x0", axis, 1),), Role.WHOLE) for axis in range(len(before)))
    ties: list[Tie] = []
    for left, right in _blocks(before, after):
        inner = [Tie((("x0", axis, 1),), Role.WHOLE) for axis in left[1:]]
        inner += [Tie((("y0", axis, 1),), Role.WHOLE) for axis in right[1:]]
        ties += [*_outer(before, after, left, right), *inner]
    return tuple(ties)


def _outer(before: tuple[int, ...], after: tuple[int, ...], left: list[int], right: list[int]) -> list[Tie]:
    if not left or not right:
        return [Tie(((port, axis, 1),), Role.WHOLE) for port, axes in (("x0", left), ("y0", right)) for axis in axes]
    wide, narrow = before[left[0]], after[right[0]]
    count = min(wide, narrow)
    if wide % count or narrow % count:
        return [Tie((("x0", left[0], 1),), Role.WHOLE), Tie((("y0", right[0], 1),), Role.WHOLE)]
    return [Tie((("x0", left[0], wide // count), ("y0", right[0], narrow // count)), Role.MAP)]


def _blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = list(range(i, min(i + 1, len(before)))), list(range(j, min(j + 1, len(after))))
        a, b = (before[i] if left else 1), (after[j] if right else 1)
        i, j = i + len(left), j + len(right)
        while a != b and (i < len(before) or j < len(after)):
            if (a < b and i < len(before)) or j >= len(after):
                a, left, i = a * before[i], [*left, i], i + 1
            else:
                b, right, j = b * after[j], [*right, j], j + 1
        blocks.append((left, right))
    return blocks


_VIEW = (Trait.VIEW,)
declare(["Reshape", "Flatten", "Squeeze", "Unsqueeze"], _nothing, reshape_axes, _VIEW)
declare(["Identity", "Dropout", "BitCast"], _nothing, broadcast_axes, _VIEW)
declare(["Shape", "Size", "Constant"], _nothing, no_axes, _VIEW)
declare(["ExpandDims"], _nothing, reshape_axes, _VIEW, "com.microsoft")
