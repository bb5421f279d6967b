"""The range in which the quantised distribution tells most about the true one."""

from __future__ import annotations

import math

import numpy as np

from eopt.passes.quant.observers.base import SIGNED_LEVELS, UNSIGNED_LEVELS, Array, Range
from eopt.passes.quant.observers.histogram import BINS, CENTRE, Counting


class Entropy(Counting):
    """TensorRT's calibration: the threshold with the least Kullback-Leibler divergence of the values on the grid from
    the values clipped to it (Migacz, 8-bit inference with TensorRT, GTC 2017).

    A threshold cuts both signs at the same magnitude. Values that are exactly zero are left out: every grid represents
    them, and half of what a ReLU writes would otherwise decide alone.

    Args:
        symmetric: the integers run from -127 to 127, else from 0 to 255 over what was seen of the range.
    """

    def __init__(self, symmetric: bool = False) -> None:
        super().__init__()
        self.symmetric = symmetric

    def chosen(self, extremes: Range) -> Range:
        """See `Counting.chosen`."""
        counts = self.seen.nonzero
        held = np.flatnonzero(counts)
        outermost = int(max(CENTRE - held[0], held[-1] + 1 - CENTRE))
        first, last = (0, BINS) if self.symmetric else (min(held[0], CENTRE), max(held[-1] + 1, CENTRE))
        levels = SIGNED_LEVELS if self.symmetric else UNSIGNED_LEVELS
        best, widest = math.inf, outermost
        for reach in range(outermost, 0, -1):
            start, stop = max(CENTRE - reach, int(first)), min(CENTRE + reach, int(last))
            if stop - start < levels:
                break
            found = divergence(counts, start, stop, levels)
            if found < best:  # a tie goes to the wider range
                best, widest = found, reach
        threshold = widest * self.seen.reach / CENTRE
        return max(extremes[0], -threshold), min(extremes[1], threshold)


def divergence(counts: Array, start: int, stop: int, levels: int) -> float:
    """How far the bins from `start` to `stop`, each level evened out over its bins that are not empty, are from the
    same bins with all others added to their ends: the Kullback-Leibler divergence in nats."""
    inside = counts[start:stop].astype(np.float64)
    clipped = inside.copy()
    clipped[0] += counts[:start].sum()
    clipped[-1] += counts[stop:].sum()
    held = clipped > 0
    begins = np.arange(levels) * inside.size // levels
    masses, filled = np.add.reduceat(inside, begins), np.add.reduceat(held.astype(np.int64), begins)
    coarse = np.repeat(masses / np.maximum(filled, 1), np.diff(begins, append=inside.size))[held]
    if not coarse.all():  # a bin at an end holds nothing but what was clipped: infinitely far
        return math.inf
    total, kept = clipped.sum(), inside.sum()
    return float(np.sum(clipped[held] * np.log(clipped[held] * kept / (coarse * total))) / total)
