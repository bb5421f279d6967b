"""Which operators to measure of a device: those that tell most about all the others, before any is measured.

Greedy A-optimal design: each next operator is the one that lowers the summed variance of the whole pool most. What is
uncertain about a device is its embedding, where a network predicts it, and what no embedding says (`residual`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eopt.costmodel import residual
from eopt.costmodel.residual import Points

Array = np.ndarray[Any, Any]
NOISE, SHAPE, LENGTH = 0.1, 1.0, 1.0  # of one measurement, and the middle of what `residual` averages over


def joint(pool: Points, slopes: Array | None = None, spread: Array | None = None) -> Array:
    """float64[n, n], covariance of the errors of a cost model over a pool.

    Args:
        slopes: float64[n, p], of the logarithm of latency along the axes of the embedding, where there is one.
        spread: float64[p], standard deviations between devices along them.
    """
    found = residual.covariance(pool, pool, SHAPE, LENGTH)
    if slopes is None or spread is None:
        return found
    along = slopes * spread
    return np.asarray(found + along @ along.T)


def choose(covariance: Array, count: int) -> list[int]:
    """Indices of the operators to measure, the most informative first.

    Args:
        covariance: float64[n, n], of the errors over the pool.
        count: how many, at most n.
    """
    left, chosen = covariance.copy(), list[int]()
    for _ in range(min(count, len(left))):
        variance = np.diag(left) + NOISE**2
        gain = (left**2).sum(0) / variance
        gain[chosen] = -np.inf
        best = int(gain.argmax())
        chosen.append(best)
        left = left - np.outer(left[best], left[best]) / variance[best]
    return chosen
