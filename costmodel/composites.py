"""Energy of modules and models: what their operators take, and what was between them, learnt from other models.

    E = sum over kinds of w_kind sum of E_operator + w_n n + w_0 + sum over kinds of w'_kind elements

with no weight below 0: elementwise work between operators (activation, mask, residual) was not measured by itself, and
goes with the joules of the kind it follows and with the size of its results. Before anything is known, joules count
once and the rest is little; kinds that no fit has seen keep that, and few models move the others little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
NOISE = 0.05  # of the logarithm of a module's energy, standard deviation
JOULES_STD = 0.3  # of the weight of a kind's joules around 1
REST_STD = 0.2  # of every other term, as a share of the energy


@dataclass(frozen=True)
class Part:
    """An operator inside: its kind, predicted joules of one execution, and elements of its result."""

    kind: str
    energy_j: float
    elements: float


@dataclass(frozen=True)
class Glue:
    """What joins operators. `weights`: float64[2 * kinds + 2], of joules and of elements by kind, number, constant."""

    kinds: tuple[str, ...]
    weights: Array

    def energy_j(self, wholes: Sequence[Sequence[Part]]) -> Array:
        """float64[n] joules of one execution of modules or models."""
        unseen = np.array([sum(part.energy_j for part in parts if part.kind not in self.kinds) for parts in wholes])
        return np.asarray(_columns(wholes, self.kinds) @ self.weights + unseen)


def fit(wholes: Sequence[Sequence[Part]], energy_j: Array) -> Glue:
    """Weights by non-negative least squares on relative errors, with a Gaussian prior.

    Args:
        wholes: n modules or models, each its parts.
        energy_j: float64[n] measured.

    Raises:
        ValueError: a reading that is not positive.
    """
    from scipy.optimize import nnls

    if not (energy_j > 0).all():
        raise ValueError("composites: a reading is not positive; leave out what was not measured")
    kinds = tuple(sorted({part.kind for parts in wholes for part in parts}))
    shares = _columns(wholes, kinds) / energy_j[:, None]
    joules = np.arange(shares.shape[1]) < len(kinds)
    unit = np.where(joules, 1.0, 1 / np.maximum(shares.max(0), 1e-300))
    precision = 1 / np.where(joules, JOULES_STD, REST_STD)
    rows = np.concatenate([shares * unit / NOISE, np.diag(precision)])
    goal = np.concatenate([np.full(len(energy_j), 1 / NOISE), precision * joules])
    return Glue(kinds, nnls(rows, goal)[0] * unit)


def _columns(wholes: Sequence[Sequence[Part]], kinds: tuple[str, ...]) -> Array:
    """float64[n, 2 * kinds + 2]."""
    places = {kind: place for place, kind in enumerate(kinds)}
    result = np.zeros((len(wholes), 2 * len(kinds) + 2))
    for row, parts in enumerate(wholes):
        for part in (part for part in parts if part.kind in places):
            result[row, places[part.kind]] += part.energy_j
            result[row, len(kinds) + places[part.kind]] += part.elements
        result[row, -2:] = len(parts), 1.0
    return result
