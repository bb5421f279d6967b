"""Reductions and softmax along axes."""

from __future__ import annotations

from eopt.ir.ops import OpView, Role, Tie, Trait, Unit, Work, declare, traffic

_PER_ELEMENT = {"ReduceL2": 2, "ReduceSumSquare": 2, "ReduceLogSum": 1, "ReduceLogSumExp": 12, "TopK": 8}
_SOFTMAX_PER_ELEMENT = 14  # maximum, subtraction, exp (10, see elementwise), sum, division


def _work(view: OpView) -> Work:
    read, written = traffic(view)
    x = view.input(0)
    return Work(_PER_ELEMENT.get(view.op, 1) * x.numel, read, written, Unit.VECTOR, x.dtype)


def _softmax(view: OpView) -> Work:
    read, written = traffic(view)
    x = view.input(0)
    return Work(_SOFTMAX_PER_ELEMENT * x.numel, read, written, Unit.VECTOR, x.dtype)


def reduced_axes(view: OpView) -> set[int]:
    """Axes that are reduced: from the attribute of older opsets or the second input of newer ones."""
    rank = len(view.input(0).shape)
    axes = view.attrs.get("axes")
    if axes is None and len(view.inputs) > 1 and view.inputs[1] is not None and view.inputs[1].const is not None:
        axes = tuple(int(axis) for axis in view.inputs[1].const.reshape(-1))
    if not axes:
        return set() if view.attrs.get("noop_with_empty_axes", 0) else set(range(rank))
    return {axis % rank for axis in axes}


def _axes(view: OpView) -> tuple[Tie, ...]:
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


def same_shape_axes(view: OpView) -> tuple[Tie, ...]:
    """Mixed along `axis`, independent elsewhere."""
    axis = view.axis(-1)
    rank = len(view.input(0).shape)
    roles = [Role.WHOLE if number == axis else Role.MAP for number in range(rank)]
    return tuple(Tie((("x0", number, 1), ("y0", number, 1)), role) for number, role in enumerate(roles))


_REDUCTION = (Trait.REDUCTION,)
_NAMES = ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"]
declare([f"Reduce{name}" for name in _NAMES], _work, _axes, _REDUCTION)
declare(["ArgMax", "ArgMin"], _work, _arg_axes, _REDUCTION)
declare(["CumSum", "TopK", "Hardmax"], _work, traits=_REDUCTION)
declare(["Softmax", "LogSoftmax"], _softmax, same_shape_axes, _REDUCTION)
declare(["QLinearSoftmax"], _softmax, traits=_REDUCTION, domain="com.microsoft")
