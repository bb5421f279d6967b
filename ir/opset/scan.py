"""Scan and attention with user-defined score functions: bodies whose number of runs the shapes say."""

from __future__ import annotations

from dataclasses import replace

from eopt.ir.errors import InputError
from eopt.ir.ops import OpView, Tensor, Work, declare
from eopt.ir.opset.attention import fused, problem_of
from eopt.ir.opset.bodies import body, check_nesting, repeated, work_of
from eopt.ir.opset.shared import before_opset
from eopt.ir.types import DType


def _scan(view: OpView) -> Work:
    """The body times the length of the scanned axis."""
    if before_opset(view, 9):
        raise InputError("Scan: before opset 9 it has a batch axis; convert the model")
    check_nesting(view.attrs.graphs, view.op)
    count = int(view.attrs["num_scan_inputs"])
    states = [replace(view.input(n), const=None) for n in range(len(view.inputs) - count)]
    scanned = [view.input(n) for n in range(len(states), len(view.inputs))]
    axes = view.attrs.get("scan_input_axes") or (0,) * count
    lengths = {tensor.shape[axis] for tensor, axis in zip(scanned, axes, strict=True)}
    if len(lengths) != 1:
        raise InputError(f"Scan: it scans axes of lengths {sorted(lengths)}; they must be equal")
    slices = [_slice(tensor, axis) for tensor, axis in zip(scanned, axes, strict=True)]
    return repeated(work_of(view, body(view, view.attrs["body"], [*states, *slices])), lengths.pop())


def _slice(tensor: Tensor, axis: int) -> Tensor:
    place = axis % len(tensor.shape)
    return Tensor((*tensor.shape[:place], *tensor.shape[place + 1 :]), tensor.dtype)


def _flexible(view: OpView) -> Work:
    """Attention, and the operations of both score functions over all scores, which stay on chip."""
    check_nesting(view.attrs.graphs, view.op)
    q, k = view.input(0), view.input(1)
    scores = Tensor((*q.shape[:3], k.shape[2]), DType.FLOAT64 if q.dtype is DType.FLOAT64 else DType.FLOAT32)
    changes = sum(work_of(view, body(view, graph, [scores])).flops for graph in view.attrs.graphs)
    return fused(view, problem_of(view), False, q, changes)


declare(["Scan"], _scan)
declare(["FlexAttention"], _flexible, domain="ai.onnx.preview")
