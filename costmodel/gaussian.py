"""Gaussian regression on few rows: what is not known beforehand is averaged over, each candidate by its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def averaged(candidates: Sequence[tuple[Array, Array]], noises: Sequence[float], errors: Array) -> Array:
    """Posterior mean of a Gaussian process at new points, averaged over kernels and noises by marginal likelihood
    (Rasmussen and Williams, Gaussian Processes for Machine Learning, equations 2.23 and 2.30).

    Args:
        candidates: covariances float64[k, k] between measured points, and float64[n, k] from new points to them.
        noises: standard deviations of one measurement that come into question.
        errors: float64[k], measured less expected beforehand; k may be 0.

    Returns:
        float64[n], what has to be added to the expectation.
    """
    means, evidence = [], []
    for own, cross in candidates:
        for noise in noises:
            factor = np.linalg.cholesky(own + noise**2 * np.eye(len(errors)))
            white = np.linalg.solve(factor, errors)
            means.append(cross @ np.linalg.solve(factor.T, white))
            evidence.append(-0.5 * white @ white - np.log(np.diag(factor)).sum())
    weights = np.exp(np.array(evidence) - max(evidence))
    return np.asarray(np.average(means, axis=0, weights=weights))


def alike(a: Array, b: Array, length: float) -> Array:
    """Squared-exponential correlation float64[len(a), len(b)] of points float64[n, axes]."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.asarray(np.exp(-np.maximum(squares, 0.0) / (2 * length**2)))
