"""Observers watch an activation tensor over the calibration batches and say which range deserves the grid."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]

BINS = 4096
_LEAST_REACH = 1e-30  # narrower bins would leave float32's normal numbers


class Observer(Protocol):
    """Accumulates statistics of one tensor in constant memory."""

    def update(self, array: Array) -> None:
        """Take in the values of one batch, of any shape."""
        ...

    def range(self) -> tuple[float, float] | None:
        """Low and high end of the range to represent; not finite after NaN or infinity, None before any value."""
        ...


class ObserverKind(StrEnum):
    """The observers a user can choose from."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"


class MinMax:
    """Everything seen: no value of the calibration set saturates."""

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def update(self, array: Array) -> None:
        if array.size:
            self.low = float(np.minimum(self.low, array.min()))
            self.high = float(np.maximum(self.high, array.max()))

    def range(self) -> tuple[float, float] | None:
        return None if self.low == math.inf and self.high == -math.inf else (self.low, self.high)


class Percentile:
    """The central share of all values, so that rare outliers do not coarsen the grid.

    A histogram over [-reach, reach] grows by doubling its reach, which merges neighbouring bins exactly; its bins stay
    below 1/2048 of the largest magnitude, an eighth of an 8-bit step, and the quantiles are right within one bin.

    Args:
        percentile: the share to keep, in percent, of (0, 100]; what is left out is cut in equal parts at both ends.
    """

    def __init__(self, percentile: float) -> None:
        self.tail = (1 - percentile / 100) / 2
        self.extremes = MinMax()
        self.reach = 0.0
        self.counts = np.zeros(BINS, dtype=np.int64)

    def update(self, array: Array) -> None:
        self.extremes.update(array)
        seen = self.extremes.range()
        if seen is None or not all(map(math.isfinite, seen)):
            return
        self._grow(max(abs(seen[0]), abs(seen[1])))
        if self.reach:
            self.counts += np.histogram(array, BINS, (-self.reach, self.reach))[0]
        else:
            self.counts[BINS // 2] += array.size  # nothing but zeros so far

    def range(self) -> tuple[float, float] | None:
        seen = self.extremes.range()
        total = int(self.counts.sum())
        if seen is None or not all(map(math.isfinite, seen)) or not self.reach:
            return seen
        cumulated = np.cumsum(self.counts)
        edges = np.linspace(-self.reach, self.reach, BINS + 1)
        low = edges[np.searchsorted(cumulated, self.tail * total, side="right")]
        high = edges[np.searchsorted(cumulated, (1 - self.tail) * total, side="left") + 1]
        return max(float(low), seen[0]), min(float(high), seen[1])

    def _grow(self, magnitude: float) -> None:
        if not self.reach and magnitude:
            self.reach = max(magnitude, _LEAST_REACH)
        while self.reach < magnitude:
            self.reach *= 2
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(BINS, dtype=np.int64)
            self.counts[BINS // 4 : BINS - BINS // 4] = pairs


def observer(kind: ObserverKind, percentile: float) -> Observer:
    """A fresh observer."""
    return MinMax() if kind == ObserverKind.MINMAX else Percentile(percentile)
