"""What each part of the model is worth: variants with identical hyper-parameters on the same generations left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from eopt.costmodel import baselines, folds
from eopt.costmodel.contender import Contender
from eopt.costmodel.embedding import SHEET_FEATURES
from eopt.costmodel.evaluate import Progress, Split, devices
from eopt.costmodel.prior import Prior
from eopt.costmodel.release import Recipe, drawn
from eopt.costmodel.samples import Samples
from eopt.costmodel.score_cache import ScoreCache
from eopt.costmodel.scores import Errors, Score, scores
from eopt.costmodel.train import Settings, train

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]
SPLIT = Split(generations=("hopper", "ampere", "turing", "volta", "arc", "blackwell"))
RECIPE = Recipe(Settings(members=1, steps=250, batch=2048), cap=150)
SHIPPED, PLAIN, NO_EMBEDDING = "encoder + latent, 5", "plain sheet features", "network, no embedding"
Variant = Callable[[Samples, Samples, Recipe, Progress], Array]
"""From what is known to what is asked: logarithms of predicted over measured seconds."""


def _network(**changes: Any) -> Variant:
    def errors(known: Samples, asked: Samples, recipe: Recipe, progress: Progress) -> Array:
        return folds.residuals(train(known, replace(recipe.settings, **changes), progress), asked).latency

    return errors


def _trees(sheet: bool) -> Variant:
    return lambda known, asked, recipe, progress: baselines.trees(known, asked, sheet) - np.log(asked.latency_s)


def _prior(known: Samples, asked: Samples, recipe: Recipe, progress: Progress) -> Array:
    return Contender("prior", Prior()).errors(asked)["latency"].error


VARIANTS: dict[str, Variant] = {
    "physics prior alone": _prior,
    "trees without the sheet": _trees(sheet=False),
    "trees with the sheet": _trees(sheet=True),
    NO_EMBEDDING: _network(encoder="none", latent=False),
    PLAIN: _network(encoder="sheet", size=len(SHEET_FEATURES), latent=False),
    "encoder alone, 5": _network(latent=False),
    "encoder + latent, 2": _network(size=2),
    SHIPPED: _network(),
    "encoder + latent, 10": _network(size=10),
}
"""All see the same features of the work on the device; they differ in what of the sheet goes in besides."""


def ablation(
    frame: pd.DataFrame,
    recipe: Recipe = RECIPE,
    split: Split = SPLIT,
    progress: Progress = lambda label, done, total: None,
    cache: ScoreCache | None = None,
) -> list[Score]:
    """Latency scores of every variant, as its method, in every fold.

    Raises:
        UsageError: nothing to leave out.
    """
    cache = cache or ScoreCache()
    found = drawn(frame, recipe)
    result: list[Score] = []
    for label, gone in split.folds(found):
        known, asked = found.take(~gone), found.take(gone)
        for name in VARIANTS:
            made = partial(_scored, known, asked, label, name, recipe, progress)
            result += cache.scores(found, gone, f"{label}: {name}", recipe, made)
    return result


def _scored(
    known: Samples, asked: Samples, label: str, name: str, recipe: Recipe, progress: Progress
) -> Iterator[Score]:
    error = VARIANTS[name](known, asked, recipe, progress)
    return scores(asked, Errors(error), label, "latency", name, devices(known))


def summary(scored: Iterable[Score]) -> list[dict[str, Any]]:
    """One row for each variant.

    A device's error is the mean over its kinds of measurement, and devices count the same. `beats_plain` counts the
    devices on which it is lower than with plain sheet features.

    Returns:
        `variant`, then for all kinds and, with `gemm_` before the name, for products alone: `devices`, `mean` and
        `median` in percent (None without devices), `beats_plain`.
    """
    import pandas as pd

    table = pd.DataFrame([score.to_dict() for score in scored])
    parts = {"": table, "gemm_": table[table["family"] == "gemm"]}
    rows: list[dict[str, Any]] = [{"variant": name} for name in VARIANTS]
    for prefix, part in parts.items():
        by_device = part.groupby(["device", "method"])[["mean_ape", "median_ape"]].mean().unstack("method")
        for row in rows:
            mean, median = (by_device[name].get(row["variant"]) for name in ("mean_ape", "median_ape"))
            row[f"{prefix}devices"] = len(by_device)
            row[f"{prefix}mean"] = None if mean is None else float(mean.mean())
            row[f"{prefix}median"] = None if median is None else float(median.mean())
            row[f"{prefix}beats_plain"] = 0 if mean is None else int((mean < by_device["mean_ape"][PLAIN]).sum())
    return rows
