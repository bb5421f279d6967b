"""How often which value occurred, in constant memory and whatever the order of the batches."""

from __future__ import annotations

import math

import numpy as np

from eopt.passes.quant.observers.base import Array, Range
from eopt.passes.quant.observers.minmax import MinMax

BINS = 4096
CENTRE = BINS // 2  # the bin that begins at zero
_CHUNK = 1 << 16  # values at a time: their copies stay in the cache
_LEAST_EXPONENT = -100  # of the reach: narrower bins would leave float32's normal numbers


class Histogram:
    """Counts over [-reach, reach); the reach is the power of two above the largest magnitude seen.

    It grows by doubling, which merges neighbouring bins. That is exact, and so is the place of a float among the bins,
    so the counts are the same in whatever order and batches the values come. A bin is at most 1/1024 of the largest
    magnitude, an eighth of the step of an 8-bit grid around zero.

    Attributes:
        reach: 0 while nothing but zeros was seen.
        counts: shape (BINS,).
        zeros: how many of the values in the bin `CENTRE` are exactly zero, which every grid represents.
    """

    def __init__(self) -> None:
        self.extremes = MinMax()
        self.reach = 0.0
        self.counts = np.zeros(BINS, dtype=np.int64)
        self.zeros = 0

    def update(self, array: Array) -> None:
        """Count the values of an array of any shape; nothing more is counted after NaN or infinity."""
        self.extremes.update(array)
        seen = self.range()
        if seen is None or not all(map(math.isfinite, seen)):
            return
        self._grow(max(abs(seen[0]), abs(seen[1])))
        self.zeros += array.size - int(np.count_nonzero(array))
        if not self.reach:
            self.counts[CENTRE] = self.zeros
            return
        values = array.reshape(-1)
        for start in range(0, values.size, _CHUNK):
            places = np.floor(values[start : start + _CHUNK].astype(np.float64) * (CENTRE / self.reach))
            self.counts += np.bincount(places.astype(np.intp) + CENTRE, minlength=BINS)

    def range(self) -> Range | None:
        """The extremes seen, see `Observer.range`."""
        return self.extremes.range()

    @property
    def usable(self) -> bool:
        """There are finite values besides zeros, so there is something to choose."""
        seen = self.range()
        return seen is not None and all(map(math.isfinite, seen)) and self.reach > 0

    @property
    def edges(self) -> Array:
        """Where the bins begin and end, shape (BINS + 1,); none lies outside of what was seen."""
        whole = np.linspace(-self.reach, self.reach, BINS + 1)
        seen = self.range()
        return whole if seen is None else np.clip(whole, *seen)

    @property
    def nonzero(self) -> Array:
        """The counts without the values that are exactly zero."""
        counts = self.counts.copy()
        counts[CENTRE] -= self.zeros
        return counts

    def _grow(self, magnitude: float) -> None:
        if not magnitude:
            return
        wanted = 2.0 ** max(math.frexp(magnitude)[1], _LEAST_EXPONENT)  # strictly above the magnitude
        self.reach = self.reach or wanted
        while self.reach < wanted:
            self.reach *= 2
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(BINS, dtype=np.int64)
            self.counts[BINS // 4 : BINS - BINS // 4] = pairs


class Counting:
    """An observer that chooses its range from the counts of a tensor."""

    def __init__(self) -> None:
        self.seen = Histogram()

    def update(self, array: Array) -> None:
        """See `Observer.update`."""
        self.seen.update(array)

    def range(self) -> Range | None:
        """See `Observer.range`."""
        extremes = self.seen.range()
        return extremes if extremes is None or not self.seen.usable else self.chosen(extremes)

    def chosen(self, extremes: Range) -> Range:
        """The range, of values that are all finite and not all zero."""
        raise NotImplementedError
