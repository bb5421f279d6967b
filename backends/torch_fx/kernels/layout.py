"""Operators that move elements: shapes, slices, padding, concatenation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.backends.torch_fx.kernels.registry import kernel
from eopt.ir.errors import InputError


@kernel("Reshape", host=(1,))
def reshape(x: Tensor, shape: list[int], *, allowzero: int = 0) -> Tensor:
    """0 copies an extent, -1 is inferred."""
    return x.reshape([x.shape[axis] if dim == 0 and not allowzero else dim for axis, dim in enumerate(shape)])


@kernel("Flatten")
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """To two dims."""
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(x.shape[:axis].numel(), x.shape[axis:].numel())


@kernel("Transpose")
def transpose(x: Tensor, *, perm: tuple[int, ...] | None = None) -> Tensor:
    """Reversed by default."""
    return x.permute(tuple(reversed(range(x.dim()))) if perm is None else perm)


@kernel("Squeeze", host=(1,))
def squeeze(x: Tensor, places: list[int] | None = None, *, axes: tuple[int, ...] | None = None) -> Tensor:
    """All axes of extent one by default."""
    chosen = axes if places is None else places
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


@kernel("Unsqueeze", host=(1,))
def unsqueeze(x: Tensor, places: list[int] | int | None = None, *, axes: tuple[int, ...] = ()) -> Tensor:
    """Axes count in the result."""
    chosen = axes if places is None else [places] if isinstance(places, int) else places
    rank = x.dim() + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        x = x.unsqueeze(axis)
    return x


@kernel("Concat")
def concat(*inputs: Tensor, axis: int) -> Tensor:
    """Along an existing axis."""
    return torch.cat(inputs, axis)


@kernel("Split", host=(1,))
def split(x: Tensor, sizes: list[int] | None = None, *, axis: int = 0, num_outputs: int = 0,
          split: tuple[int, ...] = (), outputs: int = 1) -> tuple[Tensor, ...]:  # fmt: skip
    """By sizes, or into equal parts of which the last may be smaller."""
    chosen = sizes or list(split)
    if chosen or x.shape[axis]:
        return tuple(torch.split(x, chosen or -(-x.shape[axis] // (num_outputs or outputs)), axis))
    return (x,) * outputs


@kernel("Slice", host=(1, 2, 3, 4))
def slice_(x: Tensor, begins: list[int] | None = None, stops: list[int] | None = None, places: list[int] | None = None,
           steps: list[int] | None = None, *, starts: tuple[int, ...] = (), ends: tuple[int, ...] = (),
           axes: tuple[int, ...] | None = None) -> Tensor:  # fmt: skip
    """As Python; steps back are taken on the flipped axis."""
    begins, stops = list(starts) if begins is None else begins, list(ends) if stops is None else stops
    chosen = places or axes or range(len(begins))
    for number, axis in enumerate(chosen):
        extent, step = x.shape[axis], steps[number] if steps else 1
        if step > 0:
            first, last = _bounded(begins[number], extent, 0, extent), _bounded(stops[number], extent, 0, extent)
        else:
            x = x.flip(axis)
            first = extent - 1 - _bounded(begins[number], extent, -1, extent - 1)
            last = extent - 1 - _bounded(stops[number], extent, -1, extent - 1)
        x = x[(*(slice(None),) * (axis % x.dim()), slice(first, max(first, last), abs(step)))]
    return x


def _bounded(place: int, extent: int, low: int, high: int) -> int:
    place = place + extent if place < 0 else place
    return min(max(place, low), high)


@kernel("Expand", host=(1,))
def expand(x: Tensor, shape: list[int]) -> Tensor:
    """Broadcasts both ways, as ONNX does."""
    return x.broadcast_to(torch.broadcast_shapes(x.shape, tuple(shape)))


@kernel("Tile", host=(1,))
def tile(x: Tensor, repeats: list[int]) -> Tensor:
    """Copies along each axis."""
    return x.repeat(*repeats)


@kernel("Pad", host=(1, 2, 3))
def pad(
    x: Tensor, amounts: list[int] | None = None, fill: float | list[float] | None = None,
    axes: list[int] | None = None, *, mode: str = "constant", pads: tuple[int, ...] = (), value: float = 0.0,
) -> Tensor:  # fmt: skip
    """Constant, or by indices: reflected, repeated at the edge, wrapped around."""
    amounts = list(pads) if amounts is None else amounts
    chosen = [axis % x.dim() for axis in (range(x.dim()) if axes is None else axes)]
    before, after = amounts[: len(chosen)], amounts[len(chosen) :]
    if mode == "constant":
        widths = [0] * (2 * x.dim())
        for axis, begin, end in zip(chosen, before, after, strict=True):
            widths[2 * (x.dim() - 1 - axis) : 2 * (x.dim() - axis)] = [begin, end]
        given = fill[0] if isinstance(fill, list) else fill
        return F.pad(x, widths, value=value if given is None else given)
    for axis, begin, end in zip(chosen, before, after, strict=True):
        x = x.index_select(axis, _sources(mode, x.shape[axis], begin, end, x.device))
    return x


def _sources(mode: str, extent: int, begin: int, end: int, device: Any) -> Tensor:
    """Where each element of a padded axis comes from."""
    places = torch.arange(-begin, extent + end, device=device)
    if mode == "edge":
        return places.clamp(0, extent - 1)
    if mode == "wrap":
        return places % extent
    if mode != "reflect":
        raise InputError(f"Pad with mode={mode}: no such mode")
    period = max(2 * (extent - 1), 1)
    places = places % period
    return torch.where(places < extent, places, period - places)


@kernel("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Channels to positions, depth first or column first."""
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    n, c, h, w = x.shape
    parts = x.reshape(n, blocksize, blocksize, c // blocksize**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // blocksize**2, h * blocksize, w * blocksize)


@kernel("SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """The inverse of DepthToSpace."""
    if mode == "CRD":
        return F.pixel_unshuffle(x, blocksize)
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * blocksize**2, h // blocksize, w // blocksize)


@kernel("Trilu", host=(1,))
def trilu(x: Tensor, k: int | None = None, *, upper: int = 1) -> Tensor:
    """A triangle of the last two dims."""
    return torch.triu(x, k or 0) if upper else torch.tril(x, k or 0)


@kernel("ReverseSequence", host=(1,))
def reverse_sequence(x: Tensor, lengths: list[int], *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """Each sequence of the batch reversed up to its length."""
    moved = x.movedim((batch_axis, time_axis), (0, 1))
    turned = [torch.cat((row[:end].flip(0), row[end:])) for row, end in zip(moved, lengths, strict=True)]
    return torch.stack(turned).movedim((0, 1), (batch_axis, time_axis))


@kernel("CenterCropPad", host=(1,))
def center_crop_pad(x: Tensor, shape: list[int], *, axes: tuple[int, ...] | None = None) -> Tensor:
    """Cut or padded with zeros to a size, around the centre."""
    for axis, size in zip(axes or range(x.dim()), shape, strict=True):
        missing = size - x.shape[axis]
        if missing < 0:
            x = x.narrow(axis, -missing // 2, size)
        elif missing:
            widths = [0] * (2 * x.dim())
            place = 2 * (x.dim() - 1 - axis % x.dim())
            widths[place : place + 2] = [missing // 2, missing - missing // 2]
            x = F.pad(x, widths)
    return x
