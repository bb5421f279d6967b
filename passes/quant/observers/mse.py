"""The range whose grid has the least expected squared error."""

from __future__ import annotations

import math

import numpy as np

from eopt.passes.quant.observers.base import SIGNED_LEVELS, UNSIGNED_LEVELS, Array, Range
from eopt.passes.quant.observers.histogram import BINS, Counting, Histogram

_FINER = 0.99  # from one step tried to the next; 1 % beside the best step costs far less than 1 % of the error
_GAUSS = 0.5 / math.sqrt(3)  # two points per bin integrate its squared error exactly where no rounding lies between


class Mse(Counting):
    """Clips where what saturates costs as much as the finer grid saves (Banner et al., NeurIPS 2019, section 2).

    All grids over the values are tried, low and high end apart: as zero is always exact, a grid is a step and a zero
    point. The error of a step in the middle of the range is the same for every zero point, so one pass over the
    histogram prices all of them.

    Args:
        symmetric: the zero point is 0 and the integers run from -127 to 127; else they run from 0 to 255.
    """

    def __init__(self, symmetric: bool = False) -> None:
        super().__init__()
        self.symmetric = symmetric

    def chosen(self, extremes: Range) -> Range:
        """See `Counting.chosen`."""
        widest = max(map(abs, extremes)) * 2 if self.symmetric else max(extremes[1], 0.0) - min(extremes[0], 0.0)
        levels = SIGNED_LEVELS if self.symmetric else UNSIGNED_LEVELS
        lows = np.array([-(levels // 2)]) if self.symmetric else -np.arange(levels)
        mass = Mass(self.seen)
        step, narrowest = widest / (levels - 1), min(widest / (levels - 1), 2 * self.seen.reach / BINS)
        best, found = math.inf, extremes
        while step >= narrowest:
            errors = mass.errors(step, lows, lows + levels - 1)
            place = int(np.argmin(errors))
            if errors[place] < best:  # a tie goes to the wider grid
                best, found = float(errors[place]), (step * lows[place], step * (lows[place] + levels - 1))
            step *= _FINER
        return float(found[0]), float(found[1])


class Mass:
    """Two points for every bin that holds values, with sums from the left that price what saturates."""

    def __init__(self, seen: Histogram) -> None:
        counts, edges = seen.nonzero, seen.edges
        held = np.flatnonzero(counts)
        middle, width = (edges[held] + edges[held + 1]) / 2, edges[held + 1] - edges[held]
        self.points = np.stack([middle - _GAUSS * width, middle + _GAUSS * width], axis=1).reshape(-1)
        self.weights = np.repeat(counts[held] / 2, 2)
        self.moments = [_sums(self.weights * self.points**power) for power in range(3)]

    def errors(self, step: float, lowest: Array, highest: Array) -> Array:
        """Summed squared error, by grid: those from `lowest` to `highest` steps."""
        inside = _sums(self.weights * np.square(self.points - step * np.rint(self.points / step)))
        low, high = step * lowest, step * highest
        first, last = np.searchsorted(self.points, low), np.searchsorted(self.points, high)
        count, mean, square = (sums[first] for sums in self.moments)
        below = square - 2 * low * mean + low**2 * count
        count, mean, square = (sums[-1] - sums[last] for sums in self.moments)
        above = square - 2 * high * mean + high**2 * count
        return np.asarray(below + inside[last] - inside[first] + above)


def _sums(values: Array) -> Array:
    return np.concatenate([[0.0], np.cumsum(values)])
