"""What a prediction has to beat, on the same rows: roofline, nearest device, ridge on specs, boosted trees, TDP x time.

All see the features the model sees; none is tuned.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eopt.backends import target as targets
from eopt.costmodel.embedding import device
from eopt.costmodel.samples import Samples

Array = np.ndarray[Any, Any]
MOST = 60_000  # rows that trees and ridge are fitted on


def roofline(found: Samples) -> Array:
    """log seconds: the longer of arithmetic at the peak and traffic at the bandwidth."""
    compute, memory = found.amounts[:, 0] + found.amounts[:, 1], found.amounts[:, 2] / found.amounts[:, 3]
    return np.asarray(np.log(np.maximum(np.maximum(compute, memory), 1e-9)))


def nearest(known: Samples, asked: Samples) -> Array:
    """log seconds of the most similar kernel on the most similar sheet that has the family, not scaled."""
    from sklearn.neighbors import KNeighborsRegressor

    result = np.full(len(asked.latency_s), np.nan)
    for place in np.unique(asked.device):
        for name in np.unique(asked.family[asked.device == place]):
            rows = np.flatnonzero((asked.device == place) & (asked.family == name))
            like = _sibling(known, asked.devices[place], name)
            if len(like):
                model = KNeighborsRegressor(1).fit(known.seen[like], np.log(known.latency_s[like]))
                result[rows] = model.predict(asked.seen[rows])
    return result


def _sibling(known: Samples, name: str, family: str) -> Array:
    rows = np.flatnonzero(known.family == family)
    if not len(rows):
        return rows
    own = device(targets.load(name)).features
    places = np.unique(known.device[rows])
    sheets = [device(targets.load(known.devices[place])).features for place in places]
    best = places[int(np.argmin([np.sum((sheet - own) ** 2) for sheet in sheets]))]
    return np.asarray(rows[known.device[rows] == best])


def ridge(known: Samples, asked: Samples) -> Array:
    """log seconds by ridge regression on logarithms of amounts, features and the sheet."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = _some(known)
    model = make_pipeline(StandardScaler(), Ridge(1.0)).fit(_inputs(known, rows), np.log(known.latency_s[rows]))
    return np.asarray(model.predict(_inputs(asked, np.arange(len(asked.latency_s)))))


def trees(known: Samples, asked: Samples, sheet: bool = True) -> Array:
    """log seconds: boosted trees on the logarithm of measured time over roofline, with the sheet as features or not."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    inputs = _inputs if sheet else _work
    rows = _some(known)
    over = np.log(known.latency_s[rows]) - roofline(known)[rows]
    model = HistGradientBoostingRegressor(max_iter=300, random_state=0).fit(inputs(known, rows), over)
    return np.asarray(model.predict(inputs(asked, np.arange(len(asked.latency_s)))) + roofline(asked))


def tdp(found: Samples) -> Array:
    """log watts: the whole of the board's power, always."""
    watts = np.array([device(targets.load(name)).tdp_w for name in found.devices])
    return np.asarray(np.log(watts[found.device]))


def _some(found: Samples) -> Array:
    """Rows for a fit, every device with the same share."""
    rng = np.random.default_rng(0)
    places = np.unique(found.device)
    each = MOST // len(places)
    groups = [np.flatnonzero(found.device == place) for place in places]
    return np.concatenate([rng.choice(rows, each, replace=len(rows) < each) for rows in groups])


def _inputs(found: Samples, rows: Array) -> Array:
    sheets = np.stack([device(targets.load(name)).features for name in found.devices])
    logs = np.log(found.amounts[rows, :6] + 1e-12)
    return np.concatenate([logs, found.seen[rows], sheets[found.device[rows]]], axis=1)


def _work(found: Samples, rows: Array) -> Array:
    """Seconds at the peaks and the shape of the work, and nothing of the sheet by itself."""
    compute, vector, total, bandwidth = found.amounts[rows, :4].T
    logs = np.log(np.stack([compute, vector, total / bandwidth], axis=1) + 1e-12)
    return np.concatenate([logs, found.seen[rows]], axis=1)
