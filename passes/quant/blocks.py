"""Group-wise integer grids of a weight: in every column, `group` consecutive rows share one scale and zero point.

A weight is [k, n] here, k the input features, as `MatMul` reads it; `real = scale * (integer - zero_point)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from eopt.ir.errors import UsageError
from eopt.ir.types import DType

Array = np.ndarray[Any, Any]

GROUPS = (16, 32, 64, 128, 256)
SHRINKS = tuple(1 - number / 25 for number in range(12))
"""Shares of the full range that are tried. Steps of 0.01 instead gain 0.05 dB on normal weights, in groups of 32."""

_LEAST_STEP = 2 * float(np.finfo(np.float32).tiny)  # still a normal number when shrunk
_PIECE = 1 << 18  # weights looked at together: their copies fit into a cache, and none is as large as the weight


@dataclass(frozen=True)
class Blocks:
    """Which grids a weight is laid on.

    Attributes:
        bits: 4 or 8.
        group: rows that share a scale, a power of two from 16 to 256; None for a whole column.
        symmetric: the zero point is 0; otherwise integers are unsigned and every group has its own.
        signed_scales: a symmetric group whose largest weight is positive gets a negative scale, so that the one integer
            more on the negative side serves it. Worth 0.5 dB at 4 bits; TensorRT takes positive scales only.
        clip: search the range of least squared error instead of covering all values. Few bits gain from giving up the
            outermost values (Sakr et al. 2022, arXiv:2206.06501; Lin et al. 2023, arXiv:2306.00978).
    """

    bits: int = 4
    group: int | None = 32
    symmetric: bool = True
    clip: bool = True
    signed_scales: bool = False

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise UsageError(f"weights of {self.bits} bits: choose 4 or 8")
        if self.group is not None and self.group not in GROUPS:
            raise UsageError(f"groups of {self.group} weights: choose from {', '.join(map(str, GROUPS))}, or none")

    @property
    def dtype(self) -> DType:
        """Element type of integers and zero points."""
        return DType(f"{'' if self.symmetric else 'u'}int{self.bits}")

    @property
    def limits(self) -> tuple[int, int]:
        """Least and largest integer."""
        half = 1 << self.bits - 1
        return (-half, half - 1) if self.symmetric else (0, 2 * half - 1)

    def rows(self, k: int) -> Iterator[slice]:
        """The groups of a column of k weights; the last may be short."""
        step = self.group or k
        return (slice(start, min(start + step, k)) for start in range(0, k, step))


@dataclass(frozen=True)
class Columns:
    """The grid of one group in each of n columns.

    Attributes:
        scale: float32 [n], not 0.
        zero_point: [n], whole numbers.
        limits: least and largest integer.
    """

    scale: Array
    zero_point: Array
    limits: tuple[int, int]

    def integers(self, values: Array) -> Array:
        """The nearest integers of [..., n] weights, as floats."""
        return np.asarray(np.clip(np.rint(values / self.scale) + self.zero_point, *self.limits))

    def real(self, integers: Array) -> Array:
        """What the integers [..., n] stand for."""
        return (integers - self.zero_point) * self.scale


@dataclass(frozen=True)
class BlockWeight:
    """A quantised weight.

    Attributes:
        integers: int8 or uint8 [k, n], whatever their bits.
        scales: float32 [groups, n].
        zero_points: as the integers, [groups, n]; zeros when symmetric.
    """

    spec: Blocks
    integers: Array
    scales: Array
    zero_points: Array

    @classmethod
    def empty(cls, spec: Blocks, k: int, n: int) -> BlockWeight:
        """Room for a weight of this shape."""
        groups = len(list(spec.rows(k)))
        dtype = np.int8 if spec.symmetric else np.uint8
        return cls(spec, np.empty((k, n), dtype), np.empty((groups, n), np.float32), np.empty((groups, n), dtype))

    def grid(self, row: int) -> Columns:
        """The grid of the group this row lies in."""
        group = row // (self.spec.group or len(self.integers))
        return Columns(self.scales[group], self.zero_points[group], self.spec.limits)

    def dequantised(self) -> Array:
        """What it stands for, float32 [k, n]."""
        return np.stack(
            [self.grid(row).real(integers.astype(np.float32)) for row, integers in enumerate(self.integers)]
        )


def fit(group: Array, spec: Blocks, importance: Array | None = None) -> Columns:
    """The grid of each column of a group.

    Without the search it covers the weights and 0; with it, the squared error is never larger than that.

    Args:
        group: float32 [rows, n], finite.
        importance: [rows], factors of the squared errors that the search adds up.
    """
    low, high = spec.limits
    least, most = np.minimum(group.min(axis=0), 0).astype(float), np.maximum(group.max(axis=0), 0).astype(float)
    sign = np.where(spec.signed_scales & spec.symmetric & (most > -least), -1.0, 1.0)
    least, most = np.where(sign > 0, least, -most), np.where(sign > 0, most, -least)
    step = np.maximum(least / low, most / high) if spec.symmetric else (most - least) / high
    scale = np.where(step > 0, np.maximum(step, _LEAST_STEP), 1.0)
    zero_point = np.zeros(scale.shape) if spec.symmetric else np.clip(np.rint(-least / scale), low, high)
    grid = Columns((sign * scale).astype(np.float32), zero_point.astype(np.float32), spec.limits)
    return _shrunk(grid, group, importance) if spec.clip else grid


def _shrunk(grid: Columns, group: Array, importance: Array | None) -> Columns:
    """The grid with the range of each column shrunk around zero to where its squared error is least."""
    factors = np.ones(len(group), np.float32) if importance is None else importance.astype(np.float32)
    low, high = (limit - grid.zero_point for limit in grid.limits)
    values = group / grid.scale
    best = np.full(grid.scale.shape, np.inf, np.float32)
    chosen = np.ones(grid.scale.shape, np.float32)
    for shrink in map(np.float32, SHRINKS):
        error = np.clip(np.rint(values / shrink), low, high) * shrink - values
        loss = factors @ np.square(error, out=error)
        better = loss < best
        best, chosen = np.where(better, loss, best), np.where(better, shrink, chosen)
    return Columns(grid.scale * chosen, grid.zero_point, grid.limits)


def round_to_nearest(weight: Array, spec: Blocks, importance: Array | None = None) -> BlockWeight:
    """Every weight on the nearest point of its group's grid.

    Args:
        weight: float32 [k, n], finite.
        importance: [k], see `fit`.
    """
    k, n = weight.shape
    result = BlockWeight.empty(spec, k, n)
    for number, rows in enumerate(spec.rows(k)):
        width = max(1, _PIECE // (rows.stop - rows.start))
        for columns in (slice(start, start + width) for start in range(0, n, width)):
            piece = np.ascontiguousarray(weight[rows, columns])
            grid = fit(piece, spec, None if importance is None else importance[rows])
            result.integers[rows, columns] = grid.integers(piece)
            result.scales[number, columns], result.zero_points[number, columns] = grid.scale, grid.zero_point
    return result
