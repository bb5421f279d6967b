"""Operators over whole axes: reductions, softmax, cumulated sums."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eopt.backends.torch_fx.kernels.registry import kernel

_Reduction = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _neutral(dtype: torch.dtype, greatest: bool) -> float:
    """What the extreme of nothing is."""
    if dtype == torch.bool:
        return not greatest
    if dtype.is_floating_point:
        return -float("inf") if greatest else float("inf")
    return int(torch.iinfo(dtype).min if greatest else torch.iinfo(dtype).max)


def _extreme(function: Callable[..., Tensor], greatest: bool) -> _Reduction:
    def reduce(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
        if all(x.shape[axis] for axis in axes):
            return function(x, axes, keep)
        return torch.full_like(x.sum(axes, keepdim=keep), _neutral(x.dtype, greatest), dtype=x.dtype)

    return reduce


_REDUCTIONS: dict[str, _Reduction] = {
    "ReduceMean": torch.mean,
    "ReduceSum": _sum,
    "ReduceProd": _product,
    "ReduceMax": _extreme(torch.amax, True),
    "ReduceMin": _extreme(torch.amin, False),
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": lambda x, axes, keep: _sum(x * x, axes, keep).sqrt().to(x.dtype),
    "ReduceLogSum": lambda x, axes, keep: _sum(x, axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keep),
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
}


def _register(name: str, function: _Reduction) -> None:
    def reduce(x: Tensor, places: list[int] | int | None = None, *, axes: tuple[int, ...] | None = None,
               keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:  # fmt: skip
        chosen = [places] if isinstance(places, int) else list(places or axes or ())
        if not chosen and noop_with_empty_axes:
            return function(x.unsqueeze(0), (0,), False)
        if not chosen and not x.dim():
            return function(x.reshape(1), (0,), False)
        return function(x, tuple(chosen or range(x.dim())), bool(keepdims))

    reduce.__name__ = name.lower()
    kernel(name, host=(1,))(reduce)


for _name, _function in _REDUCTIONS.items():
    _register(_name, _function)


def _over_rest(function: Callable[..., Tensor], x: Tensor, axis: int | None, opset: int) -> Tensor:
    """Up to opset 12 over all dims from an axis (1 by default) on, from 13 on over one axis (the last)."""
    if opset > 12 or opset == 0:
        return function(x, -1 if axis is None else axis)
    begin = (1 if axis is None else axis) % max(x.dim(), 1)
    return function(x.reshape(x.shape[:begin].numel(), -1), -1).reshape(x.shape)


@kernel("Softmax")
def softmax(x: Tensor, *, axis: int | None = None, opset: int = 0) -> Tensor:
    """e^x over its sum."""
    return _over_rest(torch.softmax, x, axis, opset)


@kernel("LogSoftmax")
def log_softmax(x: Tensor, *, axis: int | None = None, opset: int = 0) -> Tensor:
    """Its logarithm."""
    return _over_rest(torch.log_softmax, x, axis, opset)


def _first_largest(x: Tensor, axis: int) -> Tensor:
    places = torch.zeros_like(x).scatter(axis, _arg(x, axis, True, False, True), 1)
    return places.to(x.dtype)


@kernel("Hardmax")
def hardmax(x: Tensor, *, axis: int | None = None, opset: int = 0) -> Tensor:
    """One at the first largest element."""
    return _over_rest(_first_largest, x, axis, opset)


def _arg(x: Tensor, axis: int, greatest: bool, last: bool, keep: bool) -> Tensor:
    """torch promises no order among equals, so the place is searched for."""
    extreme = x.amax(axis, keepdim=True) if greatest else x.amin(axis, keepdim=True)
    shape = [1] * x.dim()
    shape[axis] = -1
    places = torch.arange(x.shape[axis], device=x.device).reshape(shape)
    hit = x == extreme
    outside = -1 if last else x.shape[axis]
    found = torch.where(hit, places, torch.full_like(places, outside))
    return found.amax(axis, keepdim=keep) if last else found.amin(axis, keepdim=keep)


@kernel("ArgMax")
def arg_max(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """The first or last place of the largest element."""
    return _arg(x, axis, True, bool(select_last_index), bool(keepdims))


@kernel("ArgMin")
def arg_min(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """The first or last place of the smallest element."""
    return _arg(x, axis, False, bool(select_last_index), bool(keepdims))


def _cumulated(function: Callable[..., Tensor], x: Tensor, axis: int, exclusive: int, reverse: int) -> Tensor:
    neutral = 1 if function is torch.cumprod else 0
    x = x.flip(axis) if reverse else x
    if exclusive:
        first = torch.full_like(x.narrow(axis, 0, 1), neutral)
        x = torch.cat((first, x.narrow(axis, 0, x.shape[axis] - 1)), axis)
    result = function(x, axis, dtype=x.dtype)
    return result.flip(axis) if reverse else result


@kernel("CumSum", host=(1,))
def cum_sum(x: Tensor, axis: int | list[int], *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Along an axis, either way, with or without the element itself."""
    return _cumulated(torch.cumsum, x, axis[0] if isinstance(axis, list) else axis, exclusive, reverse)


@kernel("CumProd", host=(1,))
def cum_prod(x: Tensor, axis: int | list[int], *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Along an axis, either way, with or without the element itself."""
    return _cumulated(torch.cumprod, x, axis[0] if isinstance(axis, list) else axis, exclusive, reverse)
