"""Regions of interest and box suppression. What the boxes decide counts with its bound."""

from __future__ import annotations

from math import ceil, log2

from eopt.ir.ops import OpView, Tie, Work, declare
from eopt.ir.opset.shared import constant, mapped, vector, wholes

_OVERLAP = 18  # of two boxes: corners 4, sides 4, three areas 5, union 2, division and comparison 3
_BILINEAR = 7  # four products, three sums


def _suppression(view: OpView) -> Work:
    """Per class n log2 n comparisons to sort n scores, and the overlap (18) of every box with all that are kept."""
    scores, wanted = view.input(1), constant(view.optional(2))
    batch, classes, boxes = scores.shape
    keep = min(boxes, int(wanted[0])) if wanted and wanted[0] >= 0 else boxes
    ranked = boxes * log2(boxes) if boxes > 1 else 0.0
    return vector(view, batch * classes * (ranked + _OVERLAP * boxes * keep))


def _align(view: OpView) -> Work:
    """8 operations per sampled point: 7 to interpolate, one to pool (https://arxiv.org/abs/1703.06870). Without a
    `sampling_ratio` a box takes as many points as it has pixels, at most those of the image."""
    x, y = view.input(0), view.outputs[0]
    ratio = view.attrs.get("sampling_ratio", 0)
    points = [ratio if ratio > 0 else ceil(x.shape[n] / y.shape[n]) for n in (2, 3)]
    return vector(view, (_BILINEAR + 1) * points[0] * points[1] * y.numel)


def _max_roi(view: OpView) -> Work:
    """A comparison per pixel of every box, which is at most the image."""
    x, y = view.input(0), view.outputs[0]
    return vector(view, y.shape[0] * y.shape[1] * x.shape[2] * x.shape[3])


def _region_axes(view: OpView) -> tuple[Tie, ...]:
    """Boxes, with the numbers of their images where these are apart, and channels."""
    boxes = [("x1", 0, 1), ("y0", 0, 1), *([("x2", 0, 1)] if view.optional(2) else [])]
    return wholes(view, [mapped(*boxes), mapped(("x0", 1, 1), ("y0", 1, 1))])


declare(["NonMaxSuppression"], _suppression)
declare(["RoiAlign"], _align, _region_axes)
declare(["MaxRoiPool"], _max_roi, _region_axes)
