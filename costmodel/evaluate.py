"""Accuracy on devices and generations left out, with the baselines on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from eopt.backends import target as targets
from eopt.costmodel import baselines, folds, intervals
from eopt.costmodel.contender import Contender
from eopt.costmodel.release import Recipe, cross, drawn, spreads
from eopt.costmodel.samples import Samples
from eopt.costmodel.score_cache import ScoreCache
from eopt.costmodel.scores import Errors, Score, scores
from eopt.costmodel.train import train
from eopt.ir.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]
Methods = dict[str, dict[str, Errors]]
"""By quantity and name of the method."""
SHOTS = (5, 20, 60)
INNER_GROUPS, INNER_STEPS = 3, 250  # for the intervals of a fold


@dataclass(frozen=True)
class Split:
    """What is left out.

    Attributes:
        generations, devices: these, one fold each.
        year: train on what was released by then, score on all that came later; instead of folds.
        by: what is left out in turn where none of these is named.
    """

    generations: Sequence[str] = ()
    devices: Sequence[str] = ()
    year: int | None = None
    by: Literal["generation", "device"] = "generation"

    def folds(self, found: Samples) -> list[tuple[str, Array]]:
        """Label and mask of the rows left out, bool[n], of every fold.

        Raises:
            UsageError: a generation or device of which there are no measurements, or a year that leaves one side empty.
        """
        if self.year is not None:
            return [(f"as of {self.year}", self._later(found, self.year))]
        known = {"generation": sorted({folds.generation(name) for name in found.devices}), "device": found.devices}
        for name in (*self.generations, *self.devices):
            if name not in (*known["generation"], *found.devices):
                listed = ", ".join((*known["generation"], *found.devices))
                raise UsageError(f"no measurements of {name!r}; there are {listed}")
        named = [*self.devices, *self.generations] or known[self.by]
        return [(f"without {name}", folds.left_out(found, [name], [name])) for name in named]

    def _later(self, found: Samples, year: int) -> Array:
        released = np.array([targets.load(name).release_year or 0 for name in found.devices])[found.device]
        if not (released <= year).any() or not (released > year).any():
            span = f"{released.min()} to {released.max()}"
            raise UsageError(f"--as-of {year}: the devices measured are of {span}, and both sides need some")
        return np.asarray(released > year)


def evaluate(
    frame: pd.DataFrame,
    recipe: Recipe,
    split: Split,
    progress: Progress = lambda label, done, total: None,
    cache: ScoreCache | None = None,
    other: Contender | None = None,
) -> list[Score]:
    """Scores of all methods in every fold, and of another predictor where one is given.

    Raises:
        UsageError: nothing to leave out, or the other predictor has seen what is scored.
    """
    cache = cache or ScoreCache()
    found = drawn(frame, recipe)
    wanted = split.folds(found)
    if other is not None:
        for _, gone in wanted:
            other.refuse_seen(devices(found.take(gone)))
    result: list[Score] = []
    for label, gone in wanted:
        known, asked = found.take(~gone), found.take(gone)
        made = partial(_fold, known, asked, label, recipe, progress)
        result += cache.scores(found, gone, label, recipe, made)
        if other is not None:
            named = {quantity: {other.name: errors} for quantity, errors in other.errors(asked).items()}
            result += _scored(asked, named, label, other.devices)
    return result


def _fold(known: Samples, asked: Samples, label: str, recipe: Recipe, progress: Progress) -> Iterator[Score]:
    return _scored(asked, methods(known, asked, recipe, progress), label, devices(known))


def methods(known: Samples, asked: Samples, recipe: Recipe, progress: Progress) -> Methods:
    """Train on some samples, and say how far that model and the baselines are off on the others."""
    network = train(known, recipe.settings, progress)
    held = folds.residuals(network, asked)
    half = half_widths(known, asked, asked.latency_s * np.exp(held.latency), recipe)
    log_s, log_w = np.log(asked.latency_s), np.log(asked.power_w)
    log_tdp, log_roofline = baselines.tdp(asked), baselines.roofline(asked)
    plain = {
        "latency": {
            **{f"eopt, {shots} shots": folds.adapted(network, asked, shots) for shots in SHOTS},
            "roofline": log_roofline - log_s,
            "nearest device": baselines.nearest(known, asked) - log_s,
            "ridge": baselines.ridge(known, asked) - log_s,
            "trees": baselines.trees(known, asked) - log_s,
        },
        "power": {"TDP": log_tdp - log_w},
        "energy": {"TDP x roofline": log_tdp + log_roofline - log_w - log_s},
    }
    return {
        quantity: {
            "eopt": Errors(getattr(held, quantity), half[quantity], half[quantity]),
            **{name: Errors(error) for name, error in errors.items()},
        }
        for quantity, errors in plain.items()
    }


def half_widths(known: Samples, asked: Samples, predicted_s: Array, recipe: Recipe) -> dict[str, Array]:
    """By quantity float64[n], the logarithm of half the 90 % interval of every sample asked; NaN where there is none.

    From generations left out once more inside of what is known.
    """
    shorter = replace(recipe, fold_steps=min(INNER_STEPS, recipe.settings.steps))
    inner = cross(known, shorter, lambda label, done, total: None, INNER_GROUPS)
    kind = intervals.of_samples(asked, predicted_s)
    return {name: intervals.widths(spreads(known, inner, name), kind) for name in ("latency", "energy", "power")}


def _scored(asked: Samples, found: Methods, label: str, known: Sequence[str]) -> Iterator[Score]:
    for quantity, named in found.items():
        for method, errors in named.items():
            yield from scores(asked, errors, label, quantity, method, known)


def devices(found: Samples) -> tuple[str, ...]:
    """Names of those that samples are of."""
    return tuple(found.devices[place] for place in np.unique(found.device))
