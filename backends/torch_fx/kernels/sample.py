"""Sampling at computed positions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.backends.torch_fx.kernels.registry import kernel

_MODES = {"linear": "bilinear", "cubic": "bicubic", "bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest"}


@kernel("GridSample")
def grid_sample(x: Tensor, grid: Tensor, *, mode: str = "linear", padding_mode: str = "zeros",
                align_corners: int = 0) -> Tensor:  # fmt: skip
    """Names of modes changed with opset 20."""
    grid = grid.to(x.dtype)
    return F.grid_sample(x, grid, _MODES[mode], padding_mode, bool(align_corners))


@kernel("RoiAlign")
def roi_align(x: Tensor, rois: Tensor, batches: Tensor, *, coordinate_transformation_mode: str = "half_pixel",
              mode: str = "avg", output_height: int = 1, output_width: int = 1, sampling_ratio: int = 0,
              spatial_scale: float = 1.0, opset: int = 16) -> Tensor:  # fmt: skip
    """Each region cut into bins, each bin sampled on a grid, bilinearly."""
    shift = 0.5 if opset >= 16 and coordinate_transformation_mode == "half_pixel" else 0.0
    bins = (output_height, output_width)
    results = []
    for roi, batch in zip(rois, batches.tolist(), strict=True):
        low, high = (roi[:2] * spatial_scale - shift).flip(0), (roi[2:] * spatial_scale - shift).flip(0)
        extent = high - low if shift else (high - low).clamp(min=1.0)
        axes = []
        for axis, count in enumerate(bins):
            samples = sampling_ratio or max(int(torch.ceil(extent[axis] / count)), 1)
            steps = (torch.arange(count * samples, device=x.device) + 0.5) / samples
            axes.append((_neighbours(low[axis] + steps * extent[axis] / count, x.shape[axis + 2]), samples))
        (rows, down), (columns, across) = axes
        parts = torch.stack([
            x[batch][:, row][:, :, column] * (weight.unsqueeze(-1) * factor)
            for row, weight in rows for column, factor in columns
        ])  # fmt: skip
        pieces = parts.unflatten(2, (output_height, down)).unflatten(4, (output_width, across))
        results.append(pieces.sum(0).mean((2, 4)) if mode == "avg" else pieces.amax(0).amax((2, 4)))
    return torch.stack(results)


def _neighbours(places: Tensor, extent: int) -> list[tuple[Tensor, Tensor]]:
    """The two rows around each place with their weights; nothing beyond one pixel outside."""
    inside = ((places >= -1) & (places <= extent)).to(places.dtype)
    at = places.clamp(0, extent - 1)
    first = torch.floor(at).to(torch.int64)
    share = at - first
    return [(first, (1 - share) * inside), ((first + 1).clamp(max=extent - 1), share * inside)]
