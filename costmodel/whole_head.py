"""The head of whole models: a few numbers between the sum of a model's kernels and what the whole takes and draws.

    t = ((sum_k f_k w_k)^q + (n l)^q)^(1/q)            P = TDP u / (1 + u^c)^(1/c)
    u TDP = idle + a TDP h v^2 min(1, w / t) + e sum_c g_c E_c / t

Kernels run while the host launches the next ones, so the longer of the two decides: w_k seconds of kernels by kind, n
launches of l seconds. Power is what is always drawn, what a busy chip draws, which follows the clock h and the square
of its voltage v, and the prior's joules E by cause, which a
board holds below its limit. Nothing is about a device: all of it enters through the sums. Every factor is positive and
times enter through sums, so what makes a kernel quicker never makes a model slower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eopt.costmodel.physics import smooth_maximum
from eopt.costmodel.whole_sum import CAUSES, PARTS, QUANTISERS, Sums
from eopt.ir.errors import InputError

Array = np.ndarray[Any, Any]
LAUNCH_S = 8e-6  # as the executor `torch` has it
OVERLAP, LIMIT = 3.0, 3.5  # q and c: how sharply the longer time, and the power limit, take over
ACTIVE_SHARE = 0.15  # a: of TDP, drawn by clocks and fabric of a busy chip
EXTRA_LAUNCHES = 1.0  # of a product by quantised weights
# What is common moves easily, as do kernels the prior knows nothing of; what tells kinds or causes apart, and energy,
# hardly.
_PENALTY = {
    "overall": 0.6, "training": 6.0, "launch": 1.0, "launch training": 2.0,
    **{f"part {name}": 6.0 for name in PARTS}, **{f"part {name}": 0.2 for name in QUANTISERS},
    **{f"launch {name}": 0.2 for name in QUANTISERS},
    "energy": 12.0, **{f"cause {name}": 10.0 for name in CAUSES},
}  # fmt: skip
NAMES = tuple(_PENALTY)
SPREADS = (0.3, 0.15, 0.3)  # of the logarithm of seconds, of watts given them, and of joules


@dataclass(frozen=True)
class Head:
    """Parameters by `NAMES`, logarithms of factors; all zero is the prior."""

    values: Array

    def __getitem__(self, name: str) -> float:
        return float(self.values[NAMES.index(name)])

    def vector(self, kind: str, names: tuple[str, ...]) -> Array:
        """The factors of several kinds or causes."""
        return np.exp([self[f"{kind} {name}"] for name in names])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Head) and np.array_equal(self.values, other.values)

    def to_dict(self) -> dict[str, float]:
        """Values by name."""
        return dict(zip(NAMES, self.values.tolist(), strict=True))

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Head:
        """The head of such a mapping.

        Raises:
            InputError: not a number for each name.
        """
        try:
            return cls(np.array([float(found[name]) for name in NAMES]))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"head of whole models: {error}; it needs the numbers {', '.join(NAMES)}") from None


PRIOR = Head(np.zeros(len(NAMES)))


@dataclass(frozen=True)
class Measured:
    """What was read of each row of sums: seconds, and joules of that execution; NaN where it was not.

    Attributes:
        group: int[n]; rows of one group, a device in a source, count as much as those of any other.
    """

    latency_s: Array
    energy_j: Array
    group: Array


def latency(head: Head, sums: Sums) -> Array:
    """Seconds of each row."""
    working = _working(head, sums)
    launches = sums.launches + EXTRA_LAUNCHES * (sums.quantised @ head.vector("launch", QUANTISERS))
    each = LAUNCH_S * np.exp(head["launch"] + head["launch training"] * sums.training)
    waiting = launches * each * sums.hosted
    return np.asarray(smooth_maximum(np, working, waiting, OVERLAP))


def power(head: Head, sums: Sums, latency_s: Array) -> Array:
    """Watts of each row, given how long it takes."""
    busy = np.minimum(1.0, sums.parts.sum(1) / latency_s)
    dynamic = sums.causes @ head.vector("cause", CAUSES) * np.exp(head["energy"])
    clocked = busy * sums.held * ((1 + sums.held) / 2) ** 2
    wanted = sums.idle_w / sums.tdp_w + ACTIVE_SHARE * clocked + dynamic / latency_s / sums.tdp_w
    return np.asarray(sums.tdp_w * wanted / (1 + wanted**LIMIT) ** (1 / LIMIT))


def _working(head: Head, sums: Sums) -> Array:
    common = np.exp(head["overall"] + head["training"] * sums.training)
    return np.asarray((sums.parts @ head.vector("part", PARTS)) * common)


def fit(sums: Sums, measured: Measured) -> Head:
    """Parameters from whole models measured, shrunk to the prior; without rows they are the prior.

    Seconds, watts given the seconds, and joules count alike, as what is released answers all three.
    """
    from scipy.optimize import least_squares

    if not len(sums):
        return PRIOR
    penalty = np.array(list(_PENALTY.values()))
    _, place, counts = np.unique(measured.group, return_inverse=True, return_counts=True)
    weights = 1 / np.sqrt(counts[place])

    def residuals(values: Array) -> Array:
        return np.concatenate([*(weights * error for error in errors(Head(values), sums, measured)), penalty * values])

    return Head(np.asarray(least_squares(residuals, np.zeros(len(NAMES)), loss="soft_l1", max_nfev=80).x))


def errors(head: Head, sums: Sums, measured: Measured) -> tuple[Array, Array, Array]:
    """Logarithms of predicted over measured seconds, watts and joules in spreads; 0 where nothing was read."""
    predicted_s = latency(head, sums)
    timed = np.isfinite(measured.latency_s)
    given_s = np.where(timed, measured.latency_s, predicted_s)
    given_j = power(head, sums, given_s) * given_s
    joules = power(head, sums, predicted_s) * predicted_s
    found = (
        np.log(predicted_s / measured.latency_s),
        np.where(timed, np.log(given_j / measured.energy_j), np.nan),
        np.log(joules / measured.energy_j),
    )
    return tuple(np.nan_to_num(error) / spread for error, spread in zip(found, SPREADS, strict=True))  # type: ignore[return-value]


def apply(head: Head, sums: Sums) -> Mapping[str, Array]:
    """`latency_s`, `power_w` and `energy_j` of each row, from sheets alone."""
    seconds = latency(head, sums)
    watts = power(head, sums, seconds)
    return {"latency_s": seconds, "power_w": watts, "energy_j": seconds * watts}
