"""Accuracy on devices and generations left out, with the baselines on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from eopt.backends import target as targets
from eopt.costmodel import baselines, folds
from eopt.costmodel.release import Recipe, cross, drawn, spreads
from eopt.costmodel.samples import Samples
from eopt.costmodel.train import train
from eopt.ir.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]
FEWEST = 10
SHOTS = (5, 20, 60)
INNER_GROUPS, INNER_STEPS = 3, 250  # for the intervals of a fold


@dataclass(frozen=True)
class Score:
    """Errors of one method on the rows of one device and kind of operator.

    Attributes:
        fold: what was left out of the training.
        quantity: latency, power (time given) or energy (nothing given).
        mean_ape, median_ape: absolute error in percent; bias: mean logarithm of predicted over measured.
        tau: Kendall's rank correlation.
        coverage: share of rows inside of the 90 % interval, and `width` the median of its upper over its lower end;
            None for methods without intervals.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a figure that does not exist, as the rank correlation of constants, is None."""
        found = asdict(self)
        return {name: None if isinstance(value, float) and isnan(value) else value for name, value in found.items()}


def fold(found: Samples, gone: Array, label: str, recipe: Recipe, progress: Progress) -> list[Score]:
    """Train without some rows, and score on them."""
    known, asked = found.take(~gone), found.take(gone)
    network = train(known, recipe.settings, progress)
    held = folds.residuals(network, asked)
    log_s, log_w = np.log(asked.latency_s), np.log(asked.power_w)
    methods = {
        "latency": {
            "eopt": held.latency,
            **{f"eopt, {shots} shots": folds.adapted(network, asked, shots) for shots in SHOTS},
            "roofline": baselines.roofline(asked) - log_s,
            "nearest device": baselines.nearest(known, asked) - log_s,
            "ridge": baselines.ridge(known, asked) - log_s,
            "trees": baselines.trees(known, asked) - log_s,
        },
        "power": {"eopt": held.power, "TDP": baselines.tdp(asked) - log_w},
        "energy": {
            "eopt": held.energy,
            "TDP x roofline": baselines.tdp(asked) + baselines.roofline(asked) - log_w - log_s,
        },
    }
    spread = _spread(known, recipe)
    return [
        score
        for quantity, errors in methods.items()
        for method, error in errors.items()
        for score in _scores(asked, error, label, quantity, method, spread if method == "eopt" else {})
    ]


def _spread(known: Samples, recipe: Recipe) -> dict[str, dict[str, float]]:
    """Half intervals for the fold, from generations left out inside of its training rows."""
    shorter = replace(recipe, fold_steps=INNER_STEPS)
    inner = cross(known, shorter, lambda label, done, total: None, INNER_GROUPS)
    return {name: spreads(known, getattr(inner, name)) for name in ("latency", "energy", "power")}


def _scores(
    asked: Samples, error: Array, label: str, quantity: str, method: str, spread: dict[str, dict[str, float]]
) -> list[Score]:
    columns = [
        asked.frame[name].astype("string").fillna("").to_numpy() for name in ("device", "dtype", "scale", "source")
    ]
    keys = np.array(["|".join(row) for row in zip(columns[0], asked.family, *columns[1:], strict=True)])
    measured = asked.power_w if quantity == "power" else asked.latency_s
    result = []
    for key in np.unique(keys):
        rows = np.flatnonzero((keys == key) & np.isfinite(error))
        if len(rows) < FEWEST:
            continue
        name, family, dtype, scale, source = key.split("|")
        half = spread.get(quantity, {}).get(family)
        result.append(
            Score(
                label, name, family, dtype, scale, source, quantity, method, len(rows),
                *_errors(error[rows], measured[rows]),
                None if half is None else float(np.mean(np.abs(error[rows]) <= half)),
                None if half is None else float(np.exp(2 * half)),
            )
        )  # fmt: skip
    return result


def _errors(error: Array, measured: Array) -> tuple[float, float, float, float]:
    from scipy.stats import kendalltau

    ape = 100 * np.abs(np.expm1(error))
    tau = kendalltau(np.log(measured) + error, np.log(measured)).statistic
    return float(ape.mean()), float(np.median(ape)), float(error.mean()), float(tau)


def evaluate(
    frame: pd.DataFrame,
    recipe: Recipe,
    progress: Progress = lambda label, done, total: None,
    generations: Sequence[str] = (),
    devices: Sequence[str] = (),
    year: int | None = None,
) -> list[Score]:
    """Scores of folds: later devices with a year, these devices each, or these generations each, by default all.

    Raises:
        UsageError: a generation or device of which there are no measurements.
    """
    found = drawn(frame, recipe)
    if year is not None:
        released = np.array([targets.load(name).release_year or 0 for name in found.devices])[found.device]
        return fold(found, released > year, f"as of {year}", recipe, progress)
    every = sorted({folds.generation(name) for name in found.devices})
    for name in (*generations, *devices):
        if name not in (*every, *found.devices):
            raise UsageError(f"no measurements of {name!r}; there are {', '.join((*every, *found.devices))}")
    wanted = [(name, folds.left_out(found, [name])) for name in devices]
    chosen = generations or ([] if devices else every)
    wanted += [(name, folds.left_out(found, generations=[name])) for name in chosen]
    return [score for name, gone in wanted for score in fold(found, gone, f"without {name}", recipe, progress)]
