"""Make the artefact: thin the table, leave every generation out once for the intervals, train on all, and say how."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from eopt.costmodel import folds, intervals
from eopt.costmodel.artifact import Artifact
from eopt.costmodel.network import Network
from eopt.costmodel.samples import Samples, samples, thinned
from eopt.costmodel.train import Settings, train
from eopt.costmodel.whole_fit import WholeFit
from eopt.costmodel.wholes import Wholes

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]
FEWEST = 50  # residuals of a family below which it gets no score


@dataclass(frozen=True)
class Recipe:
    """How a model is made.

    Attributes:
        cap: rows drawn of each kind of measurement.
        exclude_devices, exclude_generations: whose rows are never seen.
        fold_steps: of the shorter training for each generation left out.
    """

    settings: Settings = field(default_factory=Settings)
    cap: int = 400
    exclude_devices: tuple[str, ...] = ()
    exclude_generations: tuple[str, ...] = ()
    fold_steps: int = 400


def release(
    frame: pd.DataFrame,
    recipe: Recipe,
    command: str,
    progress: Progress = lambda label, done, total: None,
    wholes: Wholes | None = None,
) -> Artifact:
    """Train on a table of measurements.

    Args:
        wholes: models that were measured whole; without them there is no head for these.

    Raises:
        ValueError: nothing is left to train on.
    """
    found = drawn(frame, recipe)
    found = found.take(~folds.left_out(found, recipe.exclude_devices, recipe.exclude_generations))
    network = train(found, recipe.settings, progress)
    judged = WholeFit(wholes.take(_kept(wholes, recipe))) if wholes else None
    unseen = cross(found, recipe, progress, seen=judged.leave_out if judged else _nothing)
    known = folds.residuals(network, found, latent=True)
    spread = {
        quantity: _both(spreads(found, unseen, quantity), spreads(found, known, quantity))
        for quantity in ("latency", "energy")
    }
    about = {
        "created": datetime.now(UTC).isoformat("T", "seconds"),
        "command": command,
        "data": fingerprint(found),
        "samples": len(found.latency_s),
        "settings": asdict(recipe.settings),
        "excluded": [*recipe.exclude_devices, *recipe.exclude_generations],
        "scores": scores(found, unseen),
        "machine": platform.machine(),
    }
    if judged is None:
        return Artifact(network, _executors(found), spread, about)
    about["wholes"] = judged.about()
    return Artifact(network, _executors(found), spread, about, judged.head(network), judged.spread())


def _kept(wholes: Wholes, recipe: Recipe) -> Array:
    gone = wholes.frame["device"].isin(recipe.exclude_devices)
    return np.asarray(~(gone | wholes.frame["generation"].isin(recipe.exclude_generations)))


def _nothing(network: Network, generations: Sequence[str]) -> None:
    """Nobody looks at the networks of the folds."""


def drawn(frame: pd.DataFrame, recipe: Recipe) -> Samples:
    """The rows of `draw` as samples, at most `cap` of each kind."""
    return samples(thinned(frame, recipe.cap, recipe.settings.seed))


def cross(
    found: Samples,
    recipe: Recipe,
    progress: Progress,
    groups: int | None = None,
    seen: Callable[[Network, Sequence[str]], None] = _nothing,
) -> folds.Residuals:
    """Residuals of every sample by a model that saw no device of its generation.

    Args:
        groups: leave generations out in so many groups, which is quicker and a little pessimistic; else one by one.
        seen: told of every network and the generations it has not seen.
    """
    parts = [np.full(len(found.latency_s), np.nan) for _ in range(3)]
    shorter = replace(recipe.settings, members=1, steps=recipe.fold_steps)
    every = sorted({folds.generation(found.devices[place]) for place in np.unique(found.device)})
    count = min(groups or len(every), len(every))
    names = [every[number::count] for number in range(count)]
    for number, group in enumerate(names):
        gone = folds.left_out(found, generations=group)
        network = train(found.take(~gone), shorter)
        held = folds.residuals(network, found.take(gone))
        for whole, part in zip(parts, (held.latency, held.power, held.energy), strict=True):
            whole[gone] = part
        seen(network, group)
        progress("generations left out", number + 1, len(names))
    return folds.Residuals(*parts)


def spreads(found: Samples, error: folds.Residuals, quantity: str) -> dict[str, float]:
    """Half intervals by kind, see `intervals.fit`."""
    kind = intervals.of_samples(found, found.latency_s * np.exp(error.latency))
    generations = [folds.generation(name) for name in found.devices]
    return intervals.fit(kind, getattr(error, quantity), found.device, generations)


def _both(unseen: dict[str, float], known: dict[str, float]) -> dict[str, dict[str, float]]:
    return {name: {"unseen": unseen[name], "known": known[name]} for name in unseen if name in known}


def scores(found: Samples, unseen: folds.Residuals) -> dict[str, Any]:
    """Mean and median absolute error in percent by family, devices weighted equally, generations left out."""
    result: dict[str, Any] = {}
    for quantity in ("latency", "power", "energy"):
        error = getattr(unseen, quantity)
        for name in sorted(set(found.family)):
            rows = np.flatnonzero((found.family == name) & np.isfinite(error))
            if len(rows) >= FEWEST:
                result.setdefault(quantity, {})[name] = folds.score(error[rows], found.device[rows])
    return result


def _executors(found: Samples) -> dict[str, tuple[str, ...]]:
    names = found.frame["executor"].astype("string").fillna("other")
    return {
        name: tuple(names[found.family == name].value_counts().index.astype(str)) for name in sorted(set(found.family))
    }


def fingerprint(found: Samples) -> str:
    """Of the rows that were trained on."""
    digest = hashlib.sha256()
    for array in (found.seen, found.amounts, found.latency_s, found.power_w):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
