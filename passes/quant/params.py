"""Scales and zero points: how real numbers are laid on an 8-bit grid, `real = scale * (stored - zero_point)`.

The arithmetic follows QuantizeLinear (https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html): divide, round half to
even, add the zero point, saturate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eopt.ir.types import DType

Array = np.ndarray[Any, Any]

PER_AXIS_OPSET = 13  # the first in which DequantizeLinear takes one scale per channel
_TINY = float(np.finfo(np.float32).tiny)
_BIAS_LIMIT = 2.0**30  # half the int32 range: leaves the other half to the accumulated products


@dataclass(frozen=True, slots=True)
class Grid:
    """One scale and one zero point for a whole activation tensor."""

    scale: float
    zero_point: int
    dtype: DType


def asymmetric(low: float, high: float, dtype: DType) -> Grid:
    """The finest grid over [low, high] and 0, which it represents exactly (padding and ReLU depend on that)."""
    limits = np.iinfo(dtype.numpy)
    low, high = min(low, 0.0), max(high, 0.0)
    scale = positive((high - low) / (limits.max - limits.min))
    zero_point = round(limits.min - low / scale)
    return Grid(scale, min(max(zero_point, limits.min), limits.max), dtype)


def symmetric(low: float, high: float, dtype: DType) -> Grid:
    """The finest grid of a signed type over [-m, m], m the larger magnitude; its zero point is 0."""
    return Grid(positive(max(abs(low), abs(high)) / largest(dtype)), 0, dtype)


def largest(dtype: DType) -> float:
    """Largest magnitude that a signed type has on both sides of 0: 127 of int8, 448 of float8e4m3fn."""
    import ml_dtypes

    if dtype.is_float:
        return float(ml_dtypes.finfo(dtype.numpy).max)  # type: ignore[no-untyped-call]
    return float(np.iinfo(dtype.numpy).max)


def positive(scale: float) -> float:
    """A scale that float32 holds as a normal number; 1 where the values are all zero and any scale serves."""
    return float(np.float32(max(scale, _TINY))) if scale > 0 else 1.0


def weight_scales(weight: Array, axis: int | None, limit: float, floors: Array | float = 0.0) -> Array:
    """Scales that map each channel's largest magnitude to `limit`.

    Args:
        weight: any shape.
        axis: the channel axis; None for one scale in all.
        limit: 127 of int8, or 63 where the processor's 16-bit intermediate sums would saturate; 448 of float8e4m3fn.
        floors: least scales, see `bias_floors`.

    Returns:
        float32, shape (channels,) or ().
    """
    others = None if axis is None else tuple(number for number in range(weight.ndim) if number != axis % weight.ndim)
    peaks = np.abs(weight).max(axis=others, initial=0.0).astype(np.float64)
    scales = np.maximum(peaks / limit, floors)
    return np.where(scales > 0, np.maximum(scales, _TINY), 1.0).astype(np.float32)


def bias_floors(bias: Array, scale: float) -> Array:
    """Least weight scales, in the shape of the bias, with which `bias / (scale * weight scale)` fits into int32.

    A channel they lift has weights so small that its bias decides its output, so the coarser grid costs nothing.
    """
    return np.asarray(np.abs(bias.astype(np.float64)) / (scale * _BIAS_LIMIT))


def quantized(array: Array, scales: Array, axis: int | None, dtype: DType) -> Array:
    """What is stored of `array` for a zero point of 0; `scales` of shape (channels,) runs along `axis`."""
    spread = scales if axis is None else scales.reshape(_along(array.ndim, axis))
    limit = largest(dtype)
    if dtype.is_float:
        return np.clip(array / spread, -limit, limit).astype(dtype.numpy)
    return np.clip(np.rint(array / spread), -limit - 1, limit).astype(dtype.numpy)


def dequantized(stored: Array, scales: Array, axis: int | None) -> Array:
    """The reals that `quantized` stored, float64."""
    spread = scales if axis is None else scales.reshape(_along(stored.ndim, axis))
    return np.asarray(stored.astype(np.float64) * spread)


def _along(rank: int, axis: int) -> Sequence[int]:
    return [-1 if number == axis % rank else 1 for number in range(rank)]
