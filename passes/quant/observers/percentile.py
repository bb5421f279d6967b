"""The central share of all values."""

from __future__ import annotations

import numpy as np

from eopt.passes.quant.observers.base import Range
from eopt.passes.quant.observers.histogram import Counting


class Percentile(Counting):
    """The central share of all values, so that rare outliers do not coarsen the grid; right within one bin.

    Args:
        percentile: the share to keep, in percent, of (0, 100]; what is left out is cut in equal parts at both ends.
    """

    def __init__(self, percentile: float) -> None:
        super().__init__()
        self.tail = (1 - percentile / 100) / 2

    def chosen(self, extremes: Range) -> Range:
        """See `Counting.chosen`."""
        cumulated = np.cumsum(self.seen.counts)
        total, edges = int(cumulated[-1]), self.seen.edges
        low = np.searchsorted(cumulated, self.tail * total, side="right")
        high = np.searchsorted(cumulated, (1 - self.tail) * total, side="left")
        return float(edges[low]), float(edges[high + 1])
