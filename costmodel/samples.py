"""Measurements as training samples: every device counts the same, and so does every kind of kernel on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eopt.backends import target as targets
from eopt.costmodel.embedding import device
from eopt.costmodel.network import SIMILAR
from eopt.costmodel.query import Kernel
from eopt.costmodel.records import row_kernels
from eopt.costmodel.table import FAMILIES, features, quantities, table

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]
KINDS = ("gpu",)
"""Kinds of targets with enough devices to learn from; the physics prior answers for others."""
GROUP = ("source", "device", "op", "dtype", "weight_dtype", "scale", "executor", "library")
"""Rows that differ in none of these are one kind of measurement; as many of each are drawn."""


@dataclass(frozen=True)
class Samples:
    """Operators with one kernel each, as arrays.

    Attributes:
        frame: the rows they come from.
        family: name of the network that answers for each.
        seen, amounts: `table.features` and `table.quantities` on the row's own device.
        latency_s, power_w: measured; NaN where power was not read.
        device: index into `devices`.
    """

    frame: pd.DataFrame
    family: Array
    seen: Array
    amounts: Array
    latency_s: Array
    power_w: Array
    device: Array
    devices: tuple[str, ...]

    def take(self, rows: Array) -> Samples:
        """Some of the samples, by mask or index."""
        return Samples(
            self.frame.iloc[np.flatnonzero(rows) if rows.dtype == bool else rows],
            self.family[rows],
            self.seen[rows],
            self.amounts[rows],
            self.latency_s[rows],
            self.power_w[rows],
            self.device[rows],
            self.devices,
        )


def thinned(frame: pd.DataFrame, cap: int, seed: int) -> pd.DataFrame:
    """At most `cap` rows of each kind, drawn at random; the noisy ones are left out."""
    kept = frame[~frame["noisy"].fillna(False).astype(bool)]
    order = np.random.default_rng(seed).permutation(len(kept))
    shuffled = kept.iloc[order]
    keys = [shuffled[name].astype("string").fillna("") for name in GROUP]
    return shuffled[shuffled.groupby(keys, sort=False).cumcount() < cap]


def samples(frame: pd.DataFrame) -> Samples:
    """Operators of a table as samples; what has no specification, several kernels or no sheet is left out."""
    found: list[Kernel | None] = [_kernel(row) for row in _queries(frame)]
    known = np.array([kernel is not None for kernel in found])
    rows, kernels = frame[known].reset_index(drop=True), [kernel for kernel in found if kernel]
    columns = table(kernels)
    names = tuple(sorted(rows["device"].astype(str).unique()))
    places = rows["device"].astype(str).map({name: number for number, name in enumerate(names)}).to_numpy()
    executors = rows["executor"].astype("string").fillna("other").to_numpy()
    seen, amounts = _on_devices(columns, places, names, executors)
    family = np.array([SIMILAR.get(name, name) for name in (FAMILIES[code] for code in columns.family)])
    board = (rows["energy_scope"].astype("string") == "board").fillna(False).to_numpy(dtype=bool)
    power = np.where(board, rows["power_w"].astype(float).to_numpy(), np.nan)  # scopes are never mixed
    return Samples(rows, family, seen, amounts, rows["latency_s"].astype(float).to_numpy(), power, places, names)


def _queries(frame: pd.DataFrame) -> Any:
    texts = [frame[name].astype("string").fillna("") for name in ("dtype", "weight_dtype", "math", "scale", "attrs")]
    return zip(frame["op"].astype(str), frame["inputs"], *texts, frame["phase"].astype("string"), strict=True)


def learnable(name: str) -> bool:
    """True for devices with a sheet of a kind that the network answers for."""
    return not name.startswith("other-") and targets.load(name).kind in KINDS


def _kernel(row: tuple[Any, ...]) -> Kernel | None:
    found = row_kernels(*row)
    return found[0] if len(found) == 1 and found[0].elements else None


def _on_devices(columns: Any, places: Array, names: tuple[str, ...], executors: Array) -> tuple[Array, Array]:
    seen: Array | None = None
    amounts: Array | None = None
    for number, name in enumerate(names):
        chip = device(targets.load(name))
        for executor in np.unique(executors[places == number]):
            rows = np.flatnonzero((places == number) & (executors == executor))
            part = columns.take(rows)
            one, two = features(part, chip, str(executor)), quantities(part, chip)
            if seen is None or amounts is None:
                seen, amounts = np.empty((len(places), one.shape[1]), one.dtype), np.empty((len(places), two.shape[1]))
            seen[rows], amounts[rows] = one, two
    assert seen is not None
    assert amounts is not None
    return seen, amounts
