"""Normalisations at inference. Statistics take further passes over a row that stays on chip; traffic counts once."""

from __future__ import annotations

from math import prod

from eopt.ir.ops import OpView, Role, Tie, Trait, Work, declare
from eopt.ir.opset.shared import NEVER, Again, aligned, kept, mapped, passes, vector, wholes

# Operations per element: mean (1), centred square and sum (3), scaling by 1/sqrt (1), affine (2), rounded up for the
# division and root per row. BatchNormalization at inference is one multiply-add with folded statistics.
PER_ELEMENT = {
    "BatchNormalization": 2,
    "LayerNormalization": 8,
    "GroupNormalization": 8,
    "InstanceNormalization": 8,
    "MeanVarianceNormalization": 6,
    "RMSNormalization": 5,
    "SimplifiedLayerNormalization": 5,
    "LpNormalization": 4,
    "LRN": 8,
}
# Further passes: mean, deviation and scaling are three; a root mean square or a norm and scaling are two.
_PASSES = {"BatchNormalization": 0, "RMSNormalization": 1, "SimplifiedLayerNormalization": 1, "LpNormalization": 1}


def _work(view: OpView) -> Work:
    """By operator, per element of the result."""
    y = view.outputs[0]
    return vector(view, PER_ELEMENT[view.op] * y.numel, y.dtype, _again(view))


def _again(view: OpView) -> Again:
    x = view.input(0)
    if view.op == "LRN":  # every channel is read by its neighbours, a plane apart
        size = view.attrs["size"]
        return passes(x, size - 1, size * prod(x.shape[2:]))
    count = _PASSES.get(view.op, 2)
    return passes(x, count, _row(view)) if count else NEVER


def _row(view: OpView) -> int:
    """Elements that share their statistics."""
    x = view.input(0).shape
    if view.op == "InstanceNormalization":
        return prod(x[2:])
    if view.op == "GroupNormalization":
        return prod(x[1:]) // int(view.attrs["num_groups"])
    if view.op == "MeanVarianceNormalization":
        return prod(x[axis] for axis in view.attrs.get("axes", (0, 2, 3)))
    return x[view.axis(-1)] if view.op == "LpNormalization" else prod(x[view.axis(-1) :])


def _trailing_axes(view: OpView) -> tuple[Tie, ...]:
    """Axes before `axis` are independent; those from it on are mixed, and tied to scale and bias."""
    return aligned(view, range(view.axis(-1), len(view.input(0).shape)))


def _batch_norm_axes(view: OpView) -> tuple[Tie, ...]:
    rank = len(view.input(0).shape)
    ties = [Tie((("x0", axis, 1), ("y0", axis, 1)), Role.MAP) for axis in range(rank) if axis != 1]
    channel = (("x0", 1, 1), ("y0", 1, 1), *((f"x{port}", 0, 1) for port in range(1, 5)))
    return wholes(view, (*ties, Tie(channel, Role.MAP)))


def _instance_axes(view: OpView) -> tuple[Tie, ...]:
    """Images and channels are independent."""
    channel = mapped(("x0", 1, 1), ("x1", 0, 1), ("x2", 0, 1), ("y0", 1, 1))
    return wholes(view, [mapped(("x0", 0, 1), ("y0", 0, 1)), channel])


def _group_axes(view: OpView) -> tuple[Tie, ...]:
    """Images, and groups of channels; scale and bias hold one value per channel since opset 21, per group before."""
    groups = int(view.attrs["num_groups"])
    members = [("x0", 1), ("x1", 0), ("x2", 0)]
    factors = [(port, axis, view.input(int(port[1:])).shape[axis] // groups) for port, axis in members]
    result = ("y0", 1, view.outputs[0].shape[1] // groups)
    return wholes(view, [mapped(("x0", 0, 1), ("y0", 0, 1)), mapped(*factors, result)])


def _listed_axes(view: OpView) -> tuple[Tie, ...]:
    return kept(view, view.attrs.get("axes", (0, 2, 3)))


def _one_axis(view: OpView) -> tuple[Tie, ...]:
    return kept(view, [view.axis(-1)])


def _channels_mixed(view: OpView) -> tuple[Tie, ...]:
    return kept(view, [1])


_NORM = (Trait.NORMALIZATION,)
declare(["BatchNormalization"], _work, _batch_norm_axes, _NORM)
declare(["LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"], _work, _trailing_axes, _NORM)
declare(["InstanceNormalization"], _work, _instance_axes, _NORM)
declare(["GroupNormalization"], _work, _group_axes, _NORM)
declare(["MeanVarianceNormalization"], _work, _listed_axes, _NORM)
declare(["LpNormalization"], _work, _one_axis, _NORM)
declare(["LRN"], _work, _channels_mixed, _NORM)
