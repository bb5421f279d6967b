"""Control flow: the price is that of the body, as often as it runs; how often must be known."""

from __future__ import annotations

from dataclasses import replace

from eopt.ir.errors import InputError
from eopt.ir.ops import OpView, Tensor, Work, declare
from eopt.ir.opset.bodies import body, check_nesting, repeated, weight, work_of
from eopt.ir.opset.shared import constant
from eopt.ir.types import DType


def _branches(view: OpView) -> Work:
    """The more expensive of both branches."""
    check_nesting(view.attrs.graphs, view.op)
    branches = [view.attrs["then_branch"], view.attrs["else_branch"]]
    return max((work_of(view, body(view, branch, ())) for branch in branches), key=weight)


def _loop(view: OpView) -> Work:
    """The body times the trip count, which must be constant; a condition may end it earlier."""
    trips = constant(view.optional(0))
    if not trips:
        raise InputError("Loop: its trip count is not a constant, so nobody knows how often the body runs")
    check_nesting(view.attrs.graphs, view.op)
    carried = [_carried(view, position) for position in range(2, len(view.inputs))]
    model = body(view, view.attrs["body"], [Tensor((), DType.INT64), Tensor((), DType.BOOL), *carried])
    behind = model.outputs[1 : 1 + len(carried)]
    for tensor, value in zip(carried, behind, strict=True):
        if value.shape != tensor.shape:
            raise InputError(f"Loop: the carried value {value.id!r} changes its shape from one run to the next")
    return repeated(work_of(view, model), max(0.0, trips[0]))


def _carried(view: OpView, position: int) -> Tensor:
    """What changes with every run is no constant."""
    return replace(view.input(position), const=None)


def _mapped(view: OpView) -> Work:
    """The body for every element of the sequence; how many there are no type says."""
    raise InputError(f"{view.op}: the length of a sequence is only known when it runs")


declare(["If"], _branches)
declare(["Loop"], _loop)
declare(["SequenceMap"], _mapped)
