"""How far a method is off on the rows of one device and kind of operator: errors, rank, worth of its intervals."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np

from eopt.costmodel.intervals import COVERAGE
from eopt.costmodel.samples import Samples
from eopt.costmodel.siblings import sibling

Array = np.ndarray[Any, Any]
FEWEST = 10


@dataclass(frozen=True)
class Score:
    """Errors of one method on the rows of one device and kind of operator.

    Attributes:
        fold: what was left out of the training.
        quantity: latency, power (time given) or energy (nothing given).
        mean_ape, median_ape: absolute error in percent, 100 where there is no answer; bias: mean logarithm of predicted
            over measured.
        tau: Kendall's rank correlation.
        coverage: share of rows inside of the 90 % interval, `width` the median of its upper over its lower end, and
            `interval_score` that of Gneiting and Raftery (https://doi.org/10.1198/016214506000001437, eq. 43) on
            logarithms: the mean width and a penalty for what lies outside, lower is better. None without intervals.
        sibling: a device of the same die that was trained on, '' for none: its rows are no test of new hardware.
    """

    fold: str
    device: str
    family: str
    dtype: str
    scale: str
    source: str
    quantity: str
    method: str
    rows: int
    mean_ape: float
    median_ape: float
    bias: float
    tau: float
    coverage: float | None = None
    width: float | None = None
    interval_score: float | None = None
    sibling: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a figure that does not exist, as the rank correlation of constants, is None."""
        found = asdict(self)
        return {
            name: None if isinstance(value, float) and not isfinite(value) else value for name, value in found.items()
        }


@dataclass(frozen=True)
class Errors:
    """Of one method, by row.

    Attributes:
        error: float64[n], logarithm of predicted over measured; minus infinity where the method has no answer, NaN
            where it was not asked or nothing was measured.
        below, above: float64[n], how far the 90 % interval reaches, in logarithms; None without intervals, NaN rows
            have none.
    """

    error: Array
    below: Array | None = None
    above: Array | None = None


def scores(
    asked: Samples, found: Errors, label: str, quantity: str, method: str, known: Collection[str]
) -> Iterator[Score]:
    """One for each device and kind of operator with at least `FEWEST` rows.

    Args:
        known: names of the devices that were trained on.
    """
    columns = [
        asked.frame[name].astype("string").fillna("").to_numpy() for name in ("device", "dtype", "scale", "source")
    ]
    keys = np.array(["|".join(row) for row in zip(columns[0], asked.family, *columns[1:], strict=True)])
    measured = asked.power_w if quantity == "power" else asked.latency_s
    for key in np.unique(keys):
        rows = np.flatnonzero((keys == key) & ~np.isnan(found.error))
        if len(rows) >= FEWEST:
            name, family, dtype, scale, source = key.split("|")
            yield Score(
                label, name, family, dtype, scale, source, quantity, method, len(rows),
                *_errors(found.error[rows], measured[rows]), *_intervals(found, rows), sibling(name, known),
            )  # fmt: skip


def _errors(error: Array, measured: Array) -> tuple[float, float, float, float]:
    from scipy.stats import kendalltau

    ape = 100 * np.abs(np.expm1(error))
    answered = np.isfinite(error)
    if not answered.any():
        return float(ape.mean()), float(np.median(ape)), np.nan, np.nan
    logs = np.log(measured[answered])
    tau = kendalltau(logs + error[answered], logs).statistic
    return float(ape.mean()), float(np.median(ape)), float(error[answered].mean()), float(tau)


def _intervals(found: Errors, rows: Array) -> tuple[float | None, float | None, float | None]:
    """Coverage, width and interval score. Where there is no answer nothing is covered, and no width is known."""
    if found.below is None or found.above is None:
        return None, None, None
    error, below, above = found.error[rows], found.below[rows], found.above[rows]
    stated = np.isfinite(error) & ~np.isnan(below) & ~np.isnan(above)
    if not stated.any():
        return None, None, None
    too_high, too_low = error[stated] - below[stated], -error[stated] - above[stated]
    outside = np.maximum(too_high, 0) + np.maximum(too_low, 0)
    width = below[stated] + above[stated]
    inside = np.count_nonzero(outside == 0) / np.count_nonzero(stated | np.isneginf(error))
    return float(inside), float(np.exp(np.median(width))), float(np.mean(width + 2 / (1 - COVERAGE) * outside))
