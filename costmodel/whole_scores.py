"""Whole models on generations left out: the head, the sum of operators alone, and baselines on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eopt.backends import target as targets
from eopt.costmodel import artifact, folds, whole_head
from eopt.costmodel.artifact import Artifact
from eopt.costmodel.embedding import device
from eopt.costmodel.network import Network
from eopt.costmodel.samples import Samples
from eopt.costmodel.train import Settings, train
from eopt.costmodel.whole_head import Head
from eopt.costmodel.whole_sum import Sums
from eopt.costmodel.wholes import Wholes, amounts, sums

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]
Networks = Callable[[str], Network]
"""From a generation to a network that has not seen it."""
SHRINK = 0.5  # of a device: how much evidence of others there must be before a workload is corrected
RIDGE = 1.0


def networks(found: Samples, settings: Settings, folder: Path | None = None) -> Networks:
    """Networks trained on the operators of all other generations, once each; kept in a folder where one is given."""
    made: dict[str, Network] = {}

    def without(generation: str) -> Network:
        place = folder / generation if folder else None
        if generation not in made and place and (place / artifact.ABOUT).is_file():
            made[generation] = artifact.load(place).network
        if generation not in made:
            made[generation] = train(found.take(~folds.left_out(found, generations=[generation])), settings)
            if place:
                artifact.save(Artifact(made[generation], {}, {}, {"excluded": [generation]}), place)
        return made[generation]

    return without


def evaluate_wholes(wholes: Wholes, without: Networks, generations: Sequence[str]) -> pd.DataFrame:
    """Every measured model, predicted by a network and a head that saw no device of its generation.

    Returns:
        The rows of `Wholes.frame` on these generations, with the logarithm of predicted over measured by method:
        `latency`, `energy` (nothing given), `energy, time given`, each also `… sum` without the head; `energy, known`
        where the workload was measured on other GPUs; baselines `TDP`, `ridge` and `others`. NaN: no prediction.
    """
    import pandas as pd

    parts = [_fold(wholes, without(name), wholes.frame["generation"].to_numpy() == name) for name in generations]
    return pd.concat(parts, ignore_index=True)


def _fold(wholes: Wholes, network: Network, gone: Array) -> pd.DataFrame:
    every = sums(network, wholes)
    known = wholes.take(~gone)
    head = whole_head.fit(every.take(~gone), known.measured())
    asked = wholes.take(gone)
    frame, own = asked.frame.copy(), every.take(gone)
    for name, error in _errors(head, own, asked).items():
        frame[name] = error
    for name, error in _errors(whole_head.PRIOR, own, asked).items():
        frame[f"{name} prior"] = error
    seen = _errors(head, every.take(~gone), known)
    frame["energy, known"] = frame["energy"] - _corrections(known.frame, seen["energy"], frame)
    return _with_baselines(frame, asked, known)


def _errors(head: Head, own: Sums, asked: Wholes) -> dict[str, Array]:
    """Logarithms of predicted over measured."""
    seconds, joules = asked.frame["latency_s"].to_numpy(), asked.frame["energy_j"].to_numpy()
    found = whole_head.apply(head, own)
    return {
        "latency": np.log(found["latency_s"] / seconds),
        "energy": np.log(found["energy_j"] / joules),
        "energy, time given": np.log(whole_head.power(head, own, seconds) * seconds / joules),
    }


def _corrections(known: pd.DataFrame, errors: Array, frame: pd.DataFrame) -> Array:
    """How far off the same workload was on the devices of the fit, beyond what all workloads of these were."""
    return np.array(_by_key(known, errors).reindex(_keys(frame)).fillna(0.0))


def _by_key(known: pd.DataFrame, errors: Array) -> pd.Series:
    table = known[["source", "key", "device"]].assign(error=errors).dropna()
    table["error"] -= table.groupby(["source", "device"])["error"].transform("mean")
    each = table.groupby(["source", "key", "device"])["error"].mean().groupby(["source", "key"])
    corrected: pd.Series = each.sum() / (each.size() + SHRINK)
    return corrected


def _keys(frame: pd.DataFrame) -> pd.MultiIndex:
    import pandas as pd

    return pd.MultiIndex.from_frame(frame[["source", "key"]])


def _with_baselines(frame: pd.DataFrame, asked: Wholes, known: Wholes) -> pd.DataFrame:
    joules = np.log(frame["energy_j"].to_numpy())
    frame["TDP"] = np.log([device(targets.load(name)).tdp_w for name in frame["device"]] * frame["latency_s"]) - joules
    frame["ridge"] = np.nan
    for source in frame["source"].unique():
        rows, like = (frame["source"] == source).to_numpy(), (known.frame["source"] == source).to_numpy()
        like = like & known.frame["energy_j"].notna().to_numpy()
        if known.frame["device"][like].nunique() > 1:
            frame.loc[rows, "ridge"] = _ridge(known.take(like), asked.take(rows)) - joules[rows]
    others = known.frame.assign(log=np.log(known.frame["energy_j"])).groupby(["source", "key"])["log"].mean()
    frame["others"] = others.reindex(_keys(frame)).to_numpy() - joules
    return frame


def _ridge(known: Wholes, asked: Wholes) -> Array:
    """log joules by ridge regression on logarithms of work and specs."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), Ridge(RIDGE)).fit(_specs(known), np.log(known.frame["energy_j"]))
    return np.asarray(model.predict(_specs(asked)))


def _specs(wholes: Wholes) -> Array:
    chips = [device(targets.load(name)) for name in wholes.frame["device"]]
    sheets = [
        (chip.tdp_w, chip.bandwidth, chip.vector_rate, chip.rates["float16"][0], chip.llc_bytes) for chip in chips
    ]
    work = amounts([wholes.work(row) for row in wholes.frame.itertuples()])
    caps = wholes.frame["power_cap_w"].fillna(wholes.frame["device"].map(lambda name: targets.load(name).tdp_w))
    return np.concatenate([work, np.log(sheets), np.log(caps.to_numpy())[:, None]], axis=1)


def workload_out(wholes: Wholes, network: Network, source: str) -> pd.DataFrame:
    """Workloads of a source left out one by one, all devices known: what devices are off by is taken from the others.

    Args:
        network: of all devices; workloads are no operators, so none of its rows is of one.
    """
    import pandas as pd

    every, frame, parts = sums(network, wholes), wholes.frame, []
    for name in frame["workload"][frame["source"] == source].unique():
        gone = ((frame["source"] == source) & (frame["workload"] == name)).to_numpy()
        known, asked = wholes.take(~gone), wholes.take(gone)
        head = whole_head.fit(every.take(~gone), known.measured())
        seen = known.frame.assign(**_errors(head, every.take(~gone), known))
        own = seen[seen["source"] == source].groupby("device")[["energy", "energy, time given"]].mean()
        part = asked.frame.assign(**_errors(head, every.take(gone), asked))
        for column in own:
            part[column] -= part["device"].map(own[column])
        like = (known.frame["source"] == source).to_numpy()
        part["ridge"] = _ridge(known.take(like), asked) - np.log(part["energy_j"])
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def summary(left: pd.DataFrame) -> pd.DataFrame:
    """Mean absolute error in percent of `workload_out`, by workload and over all."""
    import pandas as pd

    columns = ["energy", "energy, time given", "ridge"]
    apes = left[["workload"]].join(100 * np.abs(np.expm1(left[columns].astype(float))))
    every = apes.assign(workload="all").groupby("workload").mean()
    return pd.concat([apes.groupby("workload").mean(), every]).reset_index()


def smaller(settings: Settings) -> Settings:
    """Of a network for a fold."""
    return replace(settings, members=1, steps=300)
