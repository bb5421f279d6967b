"""Reductions and softmax along axes."""

from __future__ import annotations

from math import prod

from eopt.ir.ops import OpView, Role, Tie, Trait, Work, declare
from eopt.ir.opset.shared import NEVER, SOFTMAX, Again, before_opset, constant, kept, passes, vector, wholes

_PER_ELEMENT = {"ReduceL2": 2, "ReduceSumSquare": 2, "ReduceLogSum": 1, "ReduceLogSumExp": 12, "TopK": 8}


def _work(view: OpView) -> Work:
    """Operations per element of the input: 1 for most, 2 for squares, 12 for exponentials, 8 to select."""
    x = view.input(0)
    again = passes(x, 1, prod(x.shape)) if view.op == "ReduceLogSumExp" else NEVER  # the maximum first
    return vector(view, _PER_ELEMENT.get(view.op, 1) * x.numel, again=again)


def _softmax(view: OpView) -> Work:
    """14 operations per element: maximum, subtraction, exp (10, see elementwise.py), sum, division."""
    return vector(view, SOFTMAX * view.input(0).numel, again=softmax_passes(view))


def softmax_passes(view: OpView) -> Again:
    """Maximum, sum and division are three passes over a row (https://arxiv.org/abs/1805.02867): two more than one."""
    x = view.input(0)
    return passes(x, 2, prod(x.shape[axis] for axis in softmax_axes(view)))


def reduced_axes(view: OpView) -> set[int]:
    """Axes that are reduced: from the attribute of older opsets or the second input of newer ones."""
    rank = len(view.input(0).shape)
    axes = view.attrs.get("axes")
    if axes is None and len(view.inputs) > 1 and view.inputs[1] is not None and view.inputs[1].const is not None:
        axes = tuple(int(axis) for axis in view.inputs[1].const.reshape(-1))
    if not axes:
        return set() if view.attrs.get("noop_with_empty_axes", 0) else set(range(rank))
    return {axis % rank for axis in axes}


def axes_of_reduction(view: OpView) -> tuple[Tie, ...]:
    """What is reduced is summed over, the rest maps one to one; all is mixed while the axes are computed."""
    steering = view.optional(1) if view.attrs.get("axes") is None and not view.domain else None
    if steering is not None and steering.const is None:
        return wholes(view, ())
    rank, gone = len(view.input(0).shape), reduced_axes(view)
    keep = view.attrs.get("keepdims", 1)
    ties = [Tie((("x0", axis, 1),), Role.CONTRACT) for axis in sorted(gone)]
    left = [axis for axis in range(rank) if axis not in gone]
    ties += [Tie((("x0", axis, 1), ("y0", axis if keep else n, 1)), Role.MAP) for n, axis in enumerate(left)]
    return tuple(ties)


def _arg_axes(view: OpView) -> tuple[Tie, ...]:
    rank, axis, keep = len(view.input(0).shape), view.axis(0), view.attrs.get("keepdims", 1)
    left = [number for number in range(rank) if number != axis]
    ties = [Tie((("x0", number, 1), ("y0", number if keep else n, 1)), Role.MAP) for n, number in enumerate(left)]
    return (Tie((("x0", axis, 1),), Role.WHOLE), *ties)


def softmax_axes(view: OpView) -> tuple[int, ...]:
    """Axes a row extends over: one since opset 13, all from `axis` on before (there the default was 1)."""
    rank = len(view.input(0).shape)
    if before_opset(view, 13) and not view.domain:
        return tuple(range(view.axis(1), rank))
    return (view.axis(-1),)


def _softmax_axes(view: OpView) -> tuple[Tie, ...]:
    rows = softmax_axes(view)
    rank = len(view.input(0).shape)
    roles = [Role.WHOLE if number in rows else Role.MAP for number in range(rank)]
    return tuple(Tie((("x0", number, 1), ("y0", number, 1)), role) for number, role in enumerate(roles))


def _scan_axes(view: OpView) -> tuple[Tie, ...]:
    """Cumulative along one axis, which the second input names; mixed all over while it is computed."""
    rank, axis = len(view.input(0).shape), constant(view.input(1))
    return kept(view, [int(axis[0])] if axis else range(rank))


def _top_axes(view: OpView) -> tuple[Tie, ...]:
    return kept(view, [view.axis(-1)], [f"y{number}" for number in range(len(view.outputs))] + ["x0"])


_REDUCTION = (Trait.REDUCTION,)
_NAMES = ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"]
declare([f"Reduce{name}" for name in _NAMES], _work, axes_of_reduction, _REDUCTION)
declare(["ArgMax", "ArgMin"], _work, _arg_axes, _REDUCTION)
declare(["CumSum", "CumProd"], _work, _scan_axes, _REDUCTION)
declare(["TopK"], _work, _top_axes, _REDUCTION)
declare(["Hardmax"], _work, _softmax_axes, _REDUCTION)
declare(["Softmax", "LogSoftmax"], _softmax, _softmax_axes, _REDUCTION)
