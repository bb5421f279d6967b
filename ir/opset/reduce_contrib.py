"""Reductions and softmax of onnxruntime."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Trait, Work, declare
from eopt.ir.opset.reduce import axes_of_reduction, softmax_passes
from eopt.ir.opset.shared import SOFTMAX, kept, passes, vector

_MICROSOFT = "com.microsoft"


def _sum(view: OpView) -> Work:
    """One operation per element of the inputs."""
    return vector(view, sum(tensor.numel for tensor in view.inputs if tensor))


def _mean(view: OpView) -> Work:
    """Shift and sum per element, a change of grid per result."""
    return vector(view, 2 * view.input(0).numel + 5 * view.outputs[0].numel)


def _softmax(view: OpView) -> Work:
    """14 operations per element, see reduce.py."""
    return vector(view, SOFTMAX * view.input(0).numel, again=softmax_passes(view))


def _bias_softmax(view: OpView) -> Work:
    """An addition and a softmax over the axes from `axis` on: 15 operations per element."""
    x = view.input(0)
    row = 1
    for extent in x.shape[view.axis(1) :]:
        row *= extent
    return vector(view, (SOFTMAX + 1) * x.numel, again=passes(x, 2, row))


def _row_axes(view: OpView) -> tuple[Tie, ...]:
    return kept(view, [view.axis(-1)])


def _bias_softmax_axes(view: OpView) -> tuple[Tie, ...]:
    """Rows map one to one; which of them share a bias depends on the broadcast, so the bias is left out."""
    return kept(view, range(view.axis(1), len(view.input(0).shape)))


_REDUCTION = (Trait.REDUCTION,)
declare(["QLinearSoftmax"], _softmax, _row_axes, _REDUCTION, _MICROSOFT)
declare(["BiasSoftmax"], _bias_softmax, _bias_softmax_axes, _REDUCTION, _MICROSOFT)
declare(["QLinearReduceMean"], _mean, axes_of_reduction, _REDUCTION, _MICROSOFT)
declare(["ReduceSumInteger"], _sum, axes_of_reduction, _REDUCTION, _MICROSOFT)
declare(["IsAllFinite"], _sum, traits=_REDUCTION, domain=_MICROSOFT)
