"""Resize: torch's own kernels where they mean the same, otherwise one small matrix per axis, applied in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor

import torch
from torch import Tensor

from eopt.backends.torch_fx.kernels.registry import kernel

_ROUND: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


@dataclass(frozen=True)
class _Axis:
    """How one axis is sampled."""

    extent: int
    size: int
    scale: float
    begin: float
    end: float
    style: str

    def places(self) -> Tensor:
        """Where in the input each output element lies."""
        x = torch.arange(self.size, dtype=torch.float64)
        match self.style:
            case "asymmetric":
                return x / self.scale
            case "align_corners":
                return x * 0 if self.size == 1 else x * (self.extent - 1) / (self.scale * self.extent - 1)
            case "tf_crop_and_resize":
                span = (self.end - self.begin) * (self.extent - 1)
                middle = torch.full_like(x, 0.5 * (self.begin + self.end) * (self.extent - 1))
                return middle if self.size == 1 else self.begin * (self.extent - 1) + x * span / (self.size - 1)
            case "pytorch_half_pixel" if self.size == 1:
                return x * 0 - 0.5
            case "half_pixel_symmetric":
                adjusted = self.size / (self.scale * self.extent)
                return self.extent / 2 * (1 - adjusted) + (x + 0.5) / self.scale - 0.5
        return (x + 0.5) / self.scale - 0.5


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)


def _cubic(a: float) -> Callable[[Tensor], Tensor]:
    def weight(distance: Tensor) -> Tensor:
        d = distance.abs()
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = (((d - 5) * d + 8) * d - 4) * a
        return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))

    return weight


def _matrix(axis: _Axis, weight: Callable[[Tensor], Tensor], reach: int, antialias: bool, exclude: bool) -> Tensor:
    """(size, extent): the weights of the neighbours; those outside are the edge again, or left out."""
    stretch = min(axis.scale, 1.0) if antialias else 1.0
    places = axis.places()
    base = torch.floor(places)
    count = ceil(reach / stretch)
    neighbours = base.unsqueeze(-1) + torch.arange(1 - count, count + 1, dtype=torch.float64)
    weights = weight((neighbours - places.unsqueeze(-1)) * stretch)
    if exclude:
        weights = torch.where((neighbours < 0) | (neighbours >= axis.extent), 0.0, weights)
    if exclude or antialias:
        weights = weights / weights.sum(-1, keepdim=True)
    index = neighbours.clamp(0, axis.extent - 1).to(torch.int64)
    return torch.zeros(axis.size, axis.extent, dtype=torch.float64).scatter_add(1, index, weights)


@kernel("Resize", "Upsample", host=(1, 2, 3))
def resize(
    x: Tensor, first: list[float] | None = None, second: list[float] | None = None, third: list[int] | None = None, *,
    mode: str = "nearest", coordinate_transformation_mode: str = "half_pixel", nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75, exclude_outside: int = 0, extrapolation_value: float = 0.0, antialias: int = 0,
    axes: tuple[int, ...] | None = None, keep_aspect_ratio_policy: str = "stretch", opset: int = 11,
) -> Tensor:  # fmt: skip
    """Inputs are (roi, scales, sizes) from opset 11 on, (scales) before, where samples lie asymmetric."""
    roi, scales, sizes = (first, second, third) if opset > 10 else (None, first, None)
    style, rounding = (coordinate_transformation_mode, nearest_mode) if opset > 10 else ("asymmetric", "floor")
    chosen = [axis % x.dim() for axis in (range(x.dim()) if axes is None else axes)]
    geometry = _geometry([x.shape[axis] for axis in chosen], scales, sizes, roi, style, keep_aspect_ratio_policy)
    dtype, y, outside = x.dtype, x, None
    for place, axis in zip(chosen, geometry, strict=True):
        if axis.extent == axis.size and axis.scale == 1.0 and style != "tf_crop_and_resize":
            continue
        if mode == "nearest":
            index = _ROUND[rounding](axis.places()).clamp(0, axis.extent - 1).to(torch.int64)
            y = y.index_select(place, index.to(x.device))
        else:
            weight, reach = (_triangle, 1) if mode == "linear" else (_cubic(cubic_coeff_a), 2)
            matrix = _matrix(axis, weight, reach, bool(antialias), bool(exclude_outside)).to(x.device)
            y = (y if y.is_floating_point() else y.float()).movedim(place, -1)
            y = (y @ matrix.to(y.dtype).T).movedim(-1, place)
        beyond = (axis.places() < 0) | (axis.places() > axis.extent - 1)
        shape = [1] * x.dim()
        shape[place] = -1
        beyond = beyond.to(x.device).reshape(shape)
        outside = beyond if outside is None else outside | beyond
    if style == "tf_crop_and_resize" and outside is not None:
        y = torch.where(outside, torch.tensor(extrapolation_value, dtype=y.dtype, device=y.device), y)
    return y if y.dtype == dtype else torch.round(y).clamp(torch.iinfo(dtype).min, torch.iinfo(dtype).max).to(dtype)


def _geometry(extents: list[int], scales: list[float] | None, sizes: list[int] | None, roi: list[float] | None,
              style: str, policy: str) -> list[_Axis]:  # fmt: skip
    count = len(extents)
    begins, ends = (roi[:count], roi[count:]) if roi else ([0.0] * count, [1.0] * count)
    if sizes:
        factors = [size / extent for size, extent in zip(sizes, extents, strict=True)]
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            sizes = [floor(factor * extent + 0.5) for extent in extents]
            factors = [factor] * count
    else:
        factors = list(scales or [1.0] * count)
        spans = [end - begin if style == "tf_crop_and_resize" else 1.0 for begin, end in zip(begins, ends, strict=True)]
        sizes = [floor(extent * span * f) for extent, span, f in zip(extents, spans, factors, strict=True)]
    columns = zip(extents, sizes, factors, begins, ends, strict=True)
    return [_Axis(extent, size, factor, begin, end, style) for extent, size, factor, begin, end in columns]
