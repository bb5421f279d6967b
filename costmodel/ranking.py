"""Rank architectures on a device from a few measurements of it: what others' coefficients say is the prior.

Relative cost (latency or energy) is linear in the work of the kinds of operators. Every known device has a vector of
coefficients; their mean and covariance are the prior of a new one (empirical Bayes, as the latent of the GPU model),
which few measurements move. No measurement leaves the mean of the known devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eopt.costmodel.gaussian import averaged

Array = np.ndarray[Any, Any]
RIDGE = 10.0
NOISES = (0.02, 0.04, 0.08, 0.16)  # of one relative cost, standard deviations
SCALES = (1.0, 4.0)  # of the covariance: a device may be further off than the known ones are from each other
LEVEL = 0.5  # of the constant, standard deviation: the mean of few measurements is not that of all
DESIGN_NOISE = 0.08
DESIGN_POINTS = 500


@dataclass(frozen=True)
class Ranking:
    """What is known before a device is measured.

    Attributes:
        centre, spread: float64[p] of the features, over the architectures of the fit.
        mean: float64[p] coefficients of relative cost; covariance: float64[p, p].
    """

    centre: Array
    spread: Array
    mean: Array
    covariance: Array

    def predict(self, features: Array) -> Array:
        """float64[n] relative cost on a device nobody measured, from float64[n, p]."""
        return np.asarray(1 + self._scaled(features) @ self.mean)

    def adapt(self, measured: Array, cost: Array, features: Array) -> Array:
        """float64[n] relative cost on a device with k measurements.

        Args:
            measured: float64[k, p], features of the measured architectures.
            cost: float64[k], seconds or joules; only their ratios count.

        Raises:
            ValueError: a cost that is not positive.
        """
        if not len(cost):
            return self.predict(features)
        if not (cost > 0).all():
            raise ValueError("ranking: a measured cost is not positive")
        own, asked = self._scaled(measured), self._scaled(features)
        inside, across = own @ self.covariance @ own.T, asked @ self.covariance @ own.T
        # the constant is learnt as well, and then left out: it shifts all alike and ranks nothing
        candidates = [(scale * inside + LEVEL**2, scale * across) for scale in SCALES]
        errors = cost / cost.mean() - self.predict(measured)
        return self.predict(features) + averaged(candidates, NOISES, errors)

    def design(self, features: Array, count: int) -> list[int]:
        """Indices of the architectures to measure: each lowers the expected variance of all predictions most (greedy
        A-optimal design about the prior). Needs no measurement."""
        rows = self._scaled(features)
        some = rows[:: max(1, len(rows) // DESIGN_POINTS)]
        left, chosen = self.covariance.copy(), list[int]()
        for _ in range(count):
            along = rows @ left
            variance = (along * rows).sum(1) + DESIGN_NOISE**2
            gain = ((some @ along.T) ** 2).sum(0) / variance
            gain[chosen] = -np.inf
            best = int(gain.argmax())
            chosen.append(best)
            left = left - np.outer(along[best], along[best]) / variance[best]
        return chosen

    def _scaled(self, features: Array) -> Array:
        return np.asarray((features - self.centre) / self.spread)


def fit(features: Array, cost: Array, chips: Sequence[str]) -> Ranking:
    """The prior from devices that were measured.

    Args:
        features: float64[n, p], architectures.
        cost: float64[n, d], seconds or joules, by device.
        chips: d names; devices of one name, as batches on one chip, count as one together.

    Raises:
        ValueError: fewer than two chips.
    """
    if len(set(chips)) < 2:
        raise ValueError("ranking: the spread between devices needs at least two chips")
    centre, spread = features.mean(0), features.std(0)
    spread[spread == 0] = 1.0
    rows = (features - centre) / spread
    relative = cost / cost.mean(0) - 1
    each = np.linalg.solve(rows.T @ rows + RIDGE * np.eye(rows.shape[1]), rows.T @ relative)
    weights = np.array([1 / chips.count(name) for name in chips])
    weights /= weights.sum()
    mean = each @ weights
    off = (each - mean[:, None]) * np.sqrt(weights)
    return Ranking(centre, spread, mean, off @ off.T / (1 - (weights**2).sum()))
