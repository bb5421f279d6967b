"""Resampling of images: each element of the result is a weighted sum of its neighbours in the input."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Trait, Unit, Work, declare
from eopt.ir.opset.shared import constant, mapped, vector, wholes

_NEIGHBOURS = {"linear": 2, "bilinear": 2, "cubic": 4, "bicubic": 4}  # along each dimension; nearest takes no sum


def _resize(view: OpView) -> Work:
    """Linear interpolation takes about eight operations an output element, nearest none worth counting."""
    y, x = view.outputs[0], view.input(0)
    per_element = 0 if view.attrs.get("mode", "nearest") == "nearest" else 8
    return Work(float(per_element * y.numel), x.nbytes, y.nbytes, Unit.VECTOR if per_element else Unit.MOVE, y.dtype)


def _grid_sample(view: OpView) -> Work:
    """2 p^d - 1 operations per element (p neighbours along each of d dimensions), 4 d + p d per position for its place
    and its weights."""
    y, grid = view.outputs[0], view.input(1)
    dims, positions = grid.shape[-1], grid.numel // grid.shape[-1]
    points = _NEIGHBOURS.get(view.attrs.get("mode", "linear"), 1)
    weighted = 2 * points ** min(dims, 3) - 1 if points > 1 else 0
    return vector(view, weighted * y.numel + (4 * dims + points * dims) * positions)


def _affine_grid(view: OpView) -> Work:
    """A row of theta times (coordinates, 1): d multiplications and d additions per element."""
    y = view.outputs[0]
    return vector(view, 2 * y.shape[-1] * y.numel)


def _crop(view: OpView) -> Work:
    """As a linear Resize of each box: 8 operations per element, none for nearest."""
    per_element = 0 if view.attrs.get("mode", "bilinear") == "nearest" else 8
    return vector(view, per_element * view.outputs[0].numel)


def _resize_axes(view: OpView) -> tuple[Tie, ...]:
    """An axis of scale one is kept as it is; without knowing the scales none is taken for one."""
    x, y = view.input(0).shape, view.outputs[0].shape
    same = [n for n, extent in enumerate(x) if extent == y[n] and _scale_is_one(view, n)]
    return wholes(view, (mapped(("x0", n, 1), ("y0", n, 1)) for n in same))


def _scale_is_one(view: OpView, axis: int) -> bool:
    position = 1 if view.op == "Upsample" else 2
    crops = view.attrs.get("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    if crops or view.attrs.get("axes") is not None:
        return False
    if view.optional(3):
        return bool(view.attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch")
    scales = view.attrs.get("scales") or constant(view.optional(position)) or constant(view.optional(1))
    return bool(scales is not None and scales[axis] == 1)


def _grid_axes(view: OpView) -> tuple[Tie, ...]:
    """Images go with their grids; every position of the grid is a position of the result."""
    spatial = range(2, len(view.input(0).shape))
    ties = [mapped(("x0", 0, 1), ("x1", 0, 1), ("y0", 0, 1)), mapped(("x0", 1, 1), ("y0", 1, 1))]
    return wholes(view, [*ties, *(mapped(("x1", n - 1, 1), ("y0", n, 1)) for n in spatial)])


def _batch_axes(view: OpView) -> tuple[Tie, ...]:
    return wholes(view, [mapped(("x0", 0, 1), ("y0", 0, 1))])


def _box_axes(view: OpView) -> tuple[Tie, ...]:
    """Boxes with their images' numbers, and channels."""
    boxes = mapped(("x1", 0, 1), ("x2", 0, 1), ("y0", 0, 1))
    return wholes(view, [boxes, mapped(("x0", 1, 1), ("y0", 1, 1))])


_LAYOUT = (Trait.LAYOUT,)
declare(["Resize", "Upsample"], _resize, _resize_axes, _LAYOUT)
declare(["GridSample"], _grid_sample, _grid_axes)
declare(["AffineGrid"], _affine_grid, _batch_axes)
declare(["GridSample"], _grid_sample, _grid_axes, domain="com.microsoft")
declare(["CropAndResize"], _crop, _box_axes, domain="com.microsoft")
