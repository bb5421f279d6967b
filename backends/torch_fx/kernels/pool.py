"""Pooling. torch's own kernels where they mean the same; windows taken out of a padded tensor otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.backends.torch_fx.kernels.conv import explicit_pads, torch_pads
from eopt.backends.torch_fx.kernels.registry import kernel

Ints = tuple[int, ...]
_MAX = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


@dataclass(frozen=True)
class _Windows:
    """Geometry of a pooling, pads explicit."""

    size: Ints
    strides: Ints
    dilations: Ints
    begins: Ints
    ends: Ints
    overhang: Ints  # what the last windows reach beyond the padded tensor when the result is rounded up

    @property
    def native(self) -> bool:
        """torch pads equally, by half a window at most, and averages without dilation."""
        fits = all(2 * begin <= size for begin, size in zip(self.begins, self.size, strict=True))
        return self.begins == self.ends and fits and len(self.size) <= 3

    def of(self, x: Tensor, inside: float, outside: float) -> Tensor:
        """Windows flattened into one last dim; `inside` fills the pads, `outside` the overhang."""
        x = F.pad(x, torch_pads(self.begins, self.ends), value=inside)
        x = F.pad(x, torch_pads((0,) * len(self.size), self.overhang), value=outside)
        for axis, (size, stride, dilation) in enumerate(zip(self.size, self.strides, self.dilations, strict=True)):
            x = x.unfold(axis + 2, (size - 1) * dilation + 1, stride)[..., ::dilation]
        return x.flatten(2 + len(self.size))


def _windows(x: Tensor, size: Ints, strides: Ints, dilations: Ints, pads: Ints, auto_pad: str, ceil: int) -> _Windows:
    rank = len(size)
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    pads = explicit_pads(x, size, strides, dilations, pads, auto_pad)
    begins, ends, overhang = pads[:rank], pads[rank:], []
    for axis in range(rank):
        room = x.shape[axis + 2] + begins[axis] + ends[axis] - (size[axis] - 1) * dilations[axis] - 1
        steps = -(-room // strides[axis]) if ceil else room // strides[axis]
        if steps * strides[axis] >= x.shape[axis + 2] + begins[axis]:
            steps -= 1  # a window must not begin in the pads behind
        overhang.append(max(steps * strides[axis] - room, 0))
    return _Windows(size, strides, dilations, begins, ends, tuple(overhang))


@kernel("MaxPool")
def max_pool(x: Tensor, *, kernel_shape: Ints, strides: Ints = (), pads: Ints = (), dilations: Ints = (),
             ceil_mode: int = 0, auto_pad: str = "NOTSET", storage_order: int = 0,
             outputs: int = 1) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """With the places of the maxima, counted through the whole tensor, where asked for."""
    windows = _windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    if windows.native and outputs == 1 and x.is_floating_point():
        return _MAX[len(kernel_shape) - 1](
            x, kernel_shape, windows.strides, windows.begins, windows.dilations, bool(ceil_mode)
        )
    wide = x if x.is_floating_point() else x.double()
    taken = windows.of(wide, float("-inf"), float("-inf"))
    values, which = taken.max(-1)
    if outputs == 1:
        return values.to(x.dtype)
    spatial = x.shape[2:]
    places = torch.arange(prod(spatial), device=x.device, dtype=torch.float64)
    grid = places.reshape(tuple(reversed(spatial))).permute(*reversed(range(len(spatial))))
    grid = grid if storage_order else places.reshape(spatial)
    inner = windows.of(grid.expand(1, 1, *spatial), 0, 0).expand_as(taken).gather(-1, which.unsqueeze(-1)).squeeze(-1)
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device) * prod(spatial)
    return values.to(x.dtype), inner.to(torch.int64) + planes.reshape(*x.shape[:2], *(1,) * len(spatial))


@kernel("AveragePool")
def average_pool(x: Tensor, *, kernel_shape: Ints, strides: Ints = (), pads: Ints = (), dilations: Ints = (),
                 ceil_mode: int = 0, auto_pad: str = "NOTSET", count_include_pad: int = 0) -> Tensor:  # fmt: skip
    """Pads count when asked to; what overhangs never does."""
    windows = _windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    if windows.native and set(windows.dilations) == {1}:
        return _AVERAGE[len(kernel_shape) - 1](
            x, kernel_shape, windows.strides, windows.begins, bool(ceil_mode), bool(count_include_pad)
        )
    ones = torch.ones_like(x[:1, :1])
    return windows.of(x, 0, 0).sum(-1) / windows.of(ones, float(count_include_pad), 0).sum(-1)


@kernel("LpPool")
def lp_pool(x: Tensor, *, kernel_shape: Ints, p: int = 2, strides: Ints = (), pads: Ints = (), dilations: Ints = (),
            ceil_mode: int = 0, auto_pad: str = "NOTSET") -> Tensor:  # fmt: skip
    """The p-norm of each window."""
    windows = _windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return windows.of(x, 0, 0).abs().pow(p).sum(-1).pow(1 / p)


@kernel("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    """Mean over the spatial dims, kept."""
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@kernel("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    """Maximum over the spatial dims, kept."""
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


@kernel("GlobalLpPool")
def global_lp_pool(x: Tensor, *, p: int = 2) -> Tensor:
    """The p-norm over the spatial dims, kept."""
    return x.abs().pow(p).sum(tuple(range(2, x.dim())), keepdim=True).pow(1 / p)


@kernel("MaxUnpool", host=(2,))
def max_unpool(x: Tensor, places: Tensor, extents: list[int] | None = None, *, kernel_shape: Ints, strides: Ints = (),
               pads: Ints = ()) -> Tensor:  # fmt: skip
    """Values at the places they came from; these count in the default size even if the result is larger."""
    rank = len(kernel_shape)
    strides, pads = strides or (1,) * rank, pads or (0,) * (2 * rank)
    default = [
        (extent - 1) * strides[axis] + kernel_shape[axis] - pads[axis] - pads[axis + rank]
        for axis, extent in enumerate(x.shape[2:])
    ]
    shape = (*x.shape[:2], *default)
    flat = x.new_zeros(prod(shape)).index_put((places.reshape(-1),), x.reshape(-1))
    y = flat.reshape(shape)
    missing = [0] * rank if extents is None else [want - have for want, have in zip(extents[2:], default, strict=True)]
    return F.pad(y, torch_pads((0,) * rank, tuple(missing)))
